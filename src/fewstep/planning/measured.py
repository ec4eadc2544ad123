"""Predicted against measured memory, for a run to tell after its first student update."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fewstep.config.run_config import RunConfig
from fewstep.distributed.sharding import local
from fewstep.errors import ConfigError
from fewstep.planning.live import LiveStorage
from fewstep.planning.memory import GIB, predict
from fewstep.planning.planned_roles import PlannedRoles

_MIB = 2**20


class PeakMeter:
    """The most memory that tensors of this process take at once while it is entered.

    On CUDA the allocator's own count; elsewhere the storages are counted as operations make them, which slows the
    steps it watches.

    Args:
        device: Where the networks compute.
        resident: Tensors that are there already, spread or not; on CUDA the allocator knows them.
    """

    def __init__(self, device: torch.device, resident: Iterable[Tensor]) -> None:
        self.device = device
        self._peak = 0
        self._live: LiveStorage | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._resident = list(resident)
            self._live = LiveStorage(self._resident, count_known=True)

    def __enter__(self) -> "PeakMeter":
        if self._live is not None:
            self._live.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failure: object) -> None:
        if self._live is not None:
            self._live.__exit__(*failure)  # type: ignore[no-untyped-call]

    @property
    def peak(self) -> int:
        """Bytes."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self._live is None else self._live.peak


def resident(networks: Iterable[nn.Module], state: Any) -> list[Tensor]:
    """This process's part of everything that is there between two steps.

    Args:
        networks: Of all roles.
        state: What the trainer saves, nested as it likes: weights, averages, moments.
    """
    tensors = [value for value in pytree.tree_leaves(state) if isinstance(value, Tensor)]
    for network in networks:
        tensors += [*network.parameters(), *network.buffers()]
    return [local(tensor.detach()) for tensor in tensors]


def predicted_peak(config: RunConfig, *, processes: int, device: torch.device) -> float | None:
    """Bytes that a run's steps are expected to take at one process; None for a backbone that cannot be planned."""
    try:
        roles = PlannedRoles(config)
    except ConfigError:
        return None
    return predict(config, roles, processes=processes, accelerator=device.type == "cuda").peak


def compared(predicted: float | None, measured: float) -> str:
    """The sentence that a run prints."""
    if predicted is None:
        return f"Peak memory of tensors: {_told(measured)} measured; this backbone has no prediction."
    return (
        f"Peak memory of tensors: {_told(predicted)} predicted, {_told(measured)} measured "
        f"({predicted / measured - 1:+.0%})."
    )


def _told(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / _MIB:.1f} MiB"
