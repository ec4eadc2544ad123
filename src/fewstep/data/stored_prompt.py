"""One prompt's embeddings as they are stored: without the padding behind them, and named by their content.

Zeros at the end of a row are not stored and come back exactly. What stands behind an encoder's mask is made zero
first: the network gives it no weight, so its answers and gradients stay what they were, bit by bit.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MASK, EMBEDS = "_attention_mask", "_embeds"
"""``prompt_attention_mask`` is the mask of ``prompt_embeds``: 0 for tokens that the network must not look at."""
DIGEST_BYTES = 16

StoredPrompt = Mapping[str, Tensor]
"""One prompt's tensors by name, each cut behind its last entry that is not zero."""


def clear_padding(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the embeddings behind the last token that a mask lets through to zero."""
    cleared = dict(tensors)
    for name, mask in tensors.items():
        embeds = name.removesuffix(MASK) + EMBEDS
        if name.endswith(MASK) and embeds in tensors:
            seen = mask.ne(0).int().flip(1).cummax(1).values.flip(1).bool()
            per_token = (*seen.shape, *[1] * (tensors[embeds].ndim - seen.ndim))
            cleared[embeds] = tensors[embeds].masked_fill(~seen.view(per_token), 0)
    return cleared


def split(tensors: Mapping[str, Tensor]) -> list[StoredPrompt]:
    """Cut a batch into rows, each a copy without the zeros at its end."""
    rows: list[dict[str, Tensor]] = [{} for _ in range(len(next(iter(tensors.values()))))]
    for name, value in tensors.items():
        for row, whole, length in zip(rows, value, _lengths(value), strict=True):
            row[name] = whole.reshape(_row_shape(value))[:length].clone(memory_format=torch.contiguous_format)
    return list(rows)


def join(rows: Sequence[StoredPrompt], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Put rows together again to the batch that was split.

    Args:
        rows: At least one.
        shapes: Of every tensor of one prompt, by name.
    """
    batch = {}
    for name, shape in shapes.items():
        first = rows[0][name]
        whole = first.new_zeros((len(rows), *(shape or (1,))))
        for target, row in zip(whole, rows, strict=True):
            target[: len(row[name])] = row[name]
        batch[name] = whole.reshape(len(rows), *shape)
    return batch


def num_bytes(row: StoredPrompt) -> int:
    """What a row takes on disk."""
    return sum(value.nbytes for value in row.values())


def digest(row: StoredPrompt) -> bytes:
    """Name a row by its content; rows of one name are stored once."""
    content = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(row):
        content.update(f"{name}:{len(row[name])};".encode())
        content.update(_as_bytes(row[name]).numpy().data)
    return content.digest()


def _lengths(value: Tensor) -> list[int]:
    """How many entries of each row's first axis stand before the zeros at its end."""
    count, length, *_ = (len(value), *_row_shape(value))
    # compared as bits, so that a negative zero is kept
    filled = _as_bytes(value).view(count, length, -1).any(dim=2)
    places = torch.arange(1, length + 1)
    ends: list[int] = (filled * places).amax(dim=1).tolist()
    return ends


def _row_shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape[1:]) or (1,)


def _as_bytes(value: Tensor) -> Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)
