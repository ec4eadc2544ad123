"""What a student is written as: which files, in which precision."""

from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from fewstep.devices import DTYPES
from fewstep.errors import ConfigError, shown

WRITTEN: Final[Mapping[str, torch.dtype]] = {**DTYPES, "fp16": torch.float16}
"""The precisions of written weights."""


def require_dtype(dtype: str) -> None:
    """Raise ConfigError for a precision that students are not exported in."""
    if dtype not in WRITTEN:
        raise ConfigError(f"dtype is {shown(dtype)}; a student is exported as one of {', '.join(WRITTEN)}.")


def require_range(tensors: Iterable[tuple[str, Tensor]], dtype: str) -> None:
    """Raise ConfigError when a weight would become infinite in a precision; bf16 and fp32 reach equally far."""
    largest = torch.finfo(WRITTEN[dtype]).max
    for name, value in tensors if dtype == "fp16" else ():
        found = float(value.detach().abs().max()) if value.numel() else 0.0
        if found > largest:
            raise ConfigError(
                f"{name} holds {found:g}, and fp16 ends at {largest:g}; export the student with --dtype bf16."
            )
