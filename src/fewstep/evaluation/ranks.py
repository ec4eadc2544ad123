"""Which part of the work is this process's: the ranks of ``torchrun``, or the only one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from fewstep.devices import require_device
from fewstep.errors import ConfigError

_T = TypeVar("_T")
_PATIENCE = timedelta(days=7)
"""Of a process that has finished its share: the leading one may take hours over intervals and reports alone."""


@dataclass(frozen=True)
class Ranks:
    """This process among its peers.

    Attributes:
        rank: Its number.
        world: How many there are.
        local: Its number on its machine, which chooses its device.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes what belongs to all."""
        return self.rank == 0

    def share(self, units: Sequence[_T]) -> list[_T]:
        """This process's units: whole ones, so that no unit depends on how many processes there are."""
        return list(units[self.rank :: self.world])

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.world > 1:
            torch.distributed.barrier()

    def device(self, kind: str) -> torch.device:
        """A device of its own where the machine has several of ``kind``."""
        several = kind not in ("cpu", "mps")
        return torch.device(kind, self.local) if several else torch.device(kind)


def require_kind_of_device(kind: str) -> None:
    """Raise ConfigError unless ``kind`` is ``auto`` or a kind of device on which this torch can calculate."""
    if kind == "auto":
        return
    if require_device(kind).index is not None:
        raise ConfigError(
            f"--device {kind} names one device; give its kind, {kind.partition(':')[0]}, since every process of "
            "torchrun takes one of its own."
        )


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, or one process alone.

    Pictures are split, not tensors: the processes only wait for each other, for which gloo is enough on any device.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(
            torch.distributed.get_rank(), torch.distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", "0"))
        )
    finally:
        torch.distributed.destroy_process_group()
