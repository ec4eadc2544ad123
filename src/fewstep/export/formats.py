"""What a student is written as: which files, in which precision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

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


@dataclass(frozen=True)
class FixedRank:
    """Every layer's factors have this rank, or the layer's own where that is smaller."""

    rank: int


@dataclass(frozen=True)
class LargestError:
    """Each layer has the smallest rank whose factors lack no more of its change: a share of the norm of that."""

    share: float


@dataclass(frozen=True)
class LargestSize:
    """The ranks are those with the smallest error whose file has at most so many MiB."""

    mib: float


Cut = FixedRank | LargestError | LargestSize
"""How the change of a run of all weights is cut into low-rank factors."""


@dataclass(frozen=True)
class Pipeline:
    """A diffusers folder that needs nothing else."""


@dataclass(frozen=True)
class Lora:
    """Low-rank factors that the family's own diffusers pipeline puts on the teacher.

    Attributes:
        cut: For a run that trained all weights; None is rank 64. A run that trained factors has nothing to choose.
    """

    cut: Cut | None = None


@dataclass(frozen=True)
class ComfyUI:
    """The same under the names that ComfyUI reads, with a graph that draws."""

    cut: Cut | None = None


Format = Pipeline | Lora | ComfyUI
PIPELINE: Final = Pipeline()
FormatName = Literal["pipeline", "lora", "comfyui"]


def chosen_format(
    name: FormatName, *, rank: int | None = None, error: float | None = None, size: float | None = None
) -> Format:
    """A format as the command line names it.

    Raises:
        ConfigError: More than one of rank, error and size is given, or one for a whole pipeline.
    """
    cuts: dict[str, Cut] = {}
    if rank is not None:
        cuts["rank"] = FixedRank(rank)
    if error is not None:
        cuts["error"] = LargestError(error)
    if size is not None:
        cuts["size"] = LargestSize(size)
    if len(cuts) > 1:
        raise ConfigError(f"{' and '.join(cuts)} each choose the ranks of the factors; give one of them.")
    if name == "pipeline":
        if cuts:
            raise ConfigError(
                f"--{next(iter(cuts))} chooses the ranks of factors, and a pipeline has none; leave it out, or give "
                "--format lora."
            )
        return Pipeline()
    cut = next(iter(cuts.values()), None)
    return Lora(cut) if name == "lora" else ComfyUI(cut)
