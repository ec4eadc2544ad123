"""Text of different lengths in one tensor: padded with zeros for a batch and a cache, cut again for a network.

The mask is named as the embedding cache knows it, so that padding is neither stored nor trusted.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewstep.core.conditioning import Conditioning, PromptTensor

_EMBEDS, _MASK = "prompt_embeds", "prompt_attention_mask"
# of tokens that are kept behind the longest prompt
_MULTIPLE = 32


def pad_text(rows: Sequence[Float[Tensor, "length *width"]], num_tokens: int) -> Conditioning:
    """Prompts of different lengths as one batch, and which of its tokens are theirs.

    Args:
        rows: One prompt each; at most ``num_tokens`` of it are kept.
        num_tokens: Of every row of the result.
    """
    kept = [row[:num_tokens] for row in rows]
    padding = [(0, 0) * (row.ndim - 1) + (0, num_tokens - len(row)) for row in kept]
    embeds = torch.stack([functional.pad(row, widths) for row, widths in zip(kept, padding, strict=True)])
    lengths = torch.tensor([len(row) for row in kept], device=embeds.device)
    mask = torch.arange(num_tokens, device=embeds.device) < lengths.unsqueeze(1)
    return Conditioning({_EMBEDS: embeds, _MASK: mask.long()})


def cut_text(cond: Conditioning) -> tuple[Float[Tensor, "b longest *width"], Tensor | None]:
    """Drop the tokens that no prompt of the batch has.

    Returns:
        The embeddings, and the mask of what is left; None when nothing is masked. Without values, on the meta device,
        every prompt is as long as it may be.
    """
    mask = cond.tensors[_MASK].bool()
    longest = mask.shape[1] if mask.is_meta else int(mask.sum(1).max())
    left = mask[:, :longest]
    return cond.tensors[_EMBEDS][:, :longest], left if left.is_meta or not bool(left.all()) else None


def without_padding(*batches: Conditioning) -> tuple[Conditioning, ...]:
    """Drop what stands behind the longest prompt of all batches, where a mask hides it from the network.

    It reads the masks, which waits for a GPU that they are on. Lengths are rounded up, so that allocators and compiled
    blocks see few.
    A prompt that is hidden entirely keeps everything, because attention then takes the mean of its padding.
    """
    masks = [cond.tensors[_MASK].ne(0) for cond in batches]
    if not all(bool(mask.any(1).all()) for mask in masks):
        return batches
    longest = max(int(mask.any(0).nonzero().max()) + 1 for mask in masks)
    length = -(-longest // _MULTIPLE) * _MULTIPLE
    return tuple(
        Conditioning(
            {
                name: value[:, :length].contiguous() if name in (_EMBEDS, _MASK) else value
                for name, value in cond.tensors.items()
            }
        )
        for cond in batches
    )


def text_rows(cond: Conditioning) -> list[Float[Tensor, "length *width"]]:
    """Each prompt alone, without padding."""
    mask = cond.tensors[_MASK]
    lengths = [mask.shape[1]] * len(mask) if mask.is_meta else mask.sum(1).tolist()
    return [row[:length] for row, length in zip(cond.tensors[_EMBEDS], lengths, strict=True)]


def padded_shapes(num_tokens: int, *width: int) -> dict[str, PromptTensor]:
    """What :func:`pad_text` makes of one prompt."""
    return {_EMBEDS: PromptTensor((num_tokens, *width)), _MASK: PromptTensor((num_tokens,), torch.int64)}
