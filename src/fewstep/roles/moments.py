"""An optimiser's moments in 8 bits: codes of bitsandbytes' dynamic map, and a float32 scale per block of a row.

bitsandbytes has an AdamW of its own. Its blocks run over the flattened part that one process has, so what it stores
fits that number of processes only. Here a block ends with its row: codes and scales are cut up by rows as the weights
are, and a checkpoint fits any number of processes.
"""

import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewstep.errors import ConfigError
from fewstep.roles.quantised import DEVICES

# numbers of a block, the last for rows that are at least as long
_BLOCKS = (64, 128, 256)
# smaller weights keep float32: they take little, and biases and norms are sensitive
_SMALLEST = 4096


def is_packed(shape: Sequence[int]) -> bool:
    """Whether moments of a whole weight of this shape are held in 8 bits."""
    return len(shape) > 1 and math.prod(shape) >= _SMALLEST


def packed_bytes(rows: int, columns: int) -> int:
    """Of one moment of so many rows."""
    return rows * (columns + 4 * -(-columns // _block(columns)))


def pack(value: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes in the shape of ``value``, and a scale for each block of each row.

    Args:
        value: Float32, at least two axes, the first cut into rows.
        signed: False for squares, whose map has all its codes above zero.
    """
    rows, block = value.flatten(1), _block(math.prod(value.shape[1:]))
    if not rows.numel():  # a process without a row of this weight
        return torch.empty_like(value, dtype=torch.uint8), value.new_empty(len(rows), -(-rows.shape[1] // block))
    wide = pad(rows, (0, -rows.shape[1] % block)).contiguous()
    codes, state = _bits().quantize_blockwise(wide, code=_map(signed, value.device), blocksize=block)
    codes = codes.view_as(wide)[:, : rows.shape[1]].contiguous()  # without the padding, which a view would keep
    return codes.view(value.shape), state.absmax.view(len(rows), -1)


def unpack(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """What :func:`pack` rounded, in float32."""
    rows, block = codes.flatten(1), _block(math.prod(codes.shape[1:]))
    if not rows.numel():
        return torch.empty_like(codes, dtype=torch.float32)
    wide = pad(rows, (0, -rows.shape[1] % block)).contiguous()
    code = _map(signed, codes.device)
    values: Tensor = _bits().dequantize_blockwise(wide, absmax=scales.flatten(), code=code, blocksize=block)
    # fused AdamW goes over memory as it lies
    return values.view_as(wide)[:, : rows.shape[1]].contiguous().view(codes.shape)


def require_packed(said: str, device: torch.device) -> None:
    """Check, before anything is loaded, that moments can be held in 8 bits on a device.

    Args:
        said: The setting that asks for it, such as ``student.moments is 8bit``.

    Raises:
        ConfigError: bitsandbytes is missing, or does not serve the device.
    """
    if device.type not in DEVICES:
        raise ConfigError(
            f"{said}, which bitsandbytes computes on {' and '.join(DEVICES)}, but this run's device is {device.type}; "
            "set it to fp32, or set parallel.device=cpu."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{said}, and holding them needs the package bitsandbytes; install it with: "
            "pip install 'fewstep[quantised]'."
        )


def _block(columns: int) -> int:
    return next((size for size in _BLOCKS if columns <= size), _BLOCKS[-1])


@cache
def _map(signed: bool, device: torch.device) -> Tensor:
    made: Tensor = _bits().create_dynamic_map(signed=signed).to(device)
    return made


def _bits() -> Any:
    import bitsandbytes.functional as bits

    return bits
