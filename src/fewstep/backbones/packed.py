"""Packed latents: what FLUX and its relatives call a sequence of image tokens, their positions and their clock.

    (b, c, h, w)  <->  (b, h/p * w/p, p^2 c)     one token per p x p patch, row by row; channels c, dy, dx inside

Packing is a permutation, so states and losses stay in the unpacked layout and only the network sees tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PATCH = 2


def pack(latents: Float[Tensor, "b c h w"], patch: int = PATCH) -> Float[Tensor, "b tokens channels"]:
    """Turn every ``patch`` x ``patch`` latents into one token."""
    return functional.pixel_unshuffle(latents, patch).flatten(2).transpose(1, 2).contiguous()


def unpack(
    tokens: Float[Tensor, "b tokens channels"], height: int, width: int, patch: int = PATCH
) -> Float[Tensor, "b c h w"]:
    """Turn tokens back into latents of ``height`` x ``width``."""
    count, _, channels = tokens.shape
    patches = tokens.transpose(1, 2).reshape(count, channels, height // patch, width // patch)
    return functional.pixel_shuffle(patches, patch)


def image_positions(
    height: int, width: int, *, modality: int = 0, start: int = 0, device: torch.device | None = None
) -> Float[Tensor, "tokens 3"]:
    """Position ids of the tokens of one latent: (modality, start + row, start + column).

    Args:
        height, width: Of the latent, before packing.
        modality: Number that tells image tokens from text tokens.
        start: First row and column.
    """
    rows = start + torch.arange(height // PATCH, dtype=torch.float32, device=device)
    columns = start + torch.arange(width // PATCH, dtype=torch.float32, device=device)
    # float32 whatever the networks compute in: bfloat16 collapses 128 neighbours above 512 to 33 values
    grid = torch.stack([*torch.meshgrid(rows, columns, indexing="ij")], dim=-1).flatten(0, 1)
    return torch.cat([torch.full_like(grid[:, :1], modality), grid], dim=1)


def thousandths(sigma: Float[Tensor, "b"], dtype: torch.dtype) -> Float[Tensor, "b"]:
    """The time these pipelines give their network: rounded to ``dtype`` as 1000 sigma, then divided again.

    Exact in float32. In bfloat16 999 becomes 1000 and 750 becomes 752; a student has to meet in training the times
    that the stock pipeline will give it.
    """
    return (1000.0 * sigma.float()).to(dtype) / 1000


def limit_token_norms(
    guided: Float[Tensor, "b c h w"], conditional: Float[Tensor, "b c h w"], *, floor: float, ceiling: float = 1.0
) -> Float[Tensor, "b c h w"]:
    """Bring each token of a guided velocity towards the length of the conditional one.

    velocity <- velocity clamp(|conditional| / |velocity|, floor, ceiling)   per token    [eq:token-norm]

    Args:
        floor: How far a token may be shrunk; 0 is without a limit.
        ceiling: How far it may grow; 1 is not at all.
    """
    tokens, reference = pack(guided.float()), pack(conditional.float())
    ratio = reference.norm(dim=-1, keepdim=True) / (tokens.norm(dim=-1, keepdim=True) + 1e-8)
    return unpack(tokens * ratio.clamp(floor, ceiling), guided.shape[-2], guided.shape[-1])
