"""The processes of one run: who they are, and how they agree.

A launcher (torchrun, accelerate, srun) tells each process its rank; without one the run is a group of one process over
an in-memory store, so that one process and many go through the same code, with no port opened.
"""

import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fewstep.distributed.lost import LostProcessError, explain_lost_processes
from fewstep.errors import ConfigError, FewstepError

_T = TypeVar("_T")

# of a communicator over which the others wait while one works alone (embedding prompts takes hours)
_PATIENCE = datetime.timedelta(days=7)
# launchers that started several processes but told none of them its rank
_HINTS = ("ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND")


@dataclass(frozen=True)
class World:
    """The processes of one run, seen from one of them.

    Attributes:
        device: Where this process computes.
        rank: Number of this process, from 0; process 0 writes files and talks.
        size: Number of processes.
        patient: Communicator for waiting long; None for a process by itself.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    patient: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files and talks to the user."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place; every process has to call it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_main(self, work: Callable[[], _T]) -> _T:
        """Let process 0 do something; every process gets what it returned, or fails as it failed.

        What is returned is sent as a pickle, between processes of one run.
        """
        if self.size == 1:
            return work()
        outcome: list[tuple[_T | None, BaseException | None]] = [(None, None)]
        if self.is_main:
            try:
                outcome = [(work(), None)]
            except (FewstepError, KeyboardInterrupt, SystemExit) as error:
                dist.broadcast_object_list([(None, error)], src=0, group=self.patient)
                raise
        dist.broadcast_object_list(outcome, src=0, group=self.patient)
        value, failure = outcome[0]
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]

    def all_or_none(self, work: Callable[[], None]) -> None:
        """Let every process do its part; when one fails, all fail with the error of the first that did."""
        if self.size == 1:
            work()
            return
        failed: FewstepError | None = None
        try:
            work()
        except FewstepError as error:
            failed = error
        outcomes: list[FewstepError | None] = [None] * self.size
        dist.all_gather_object(outcomes, failed, group=self.patient)
        first = next((error for error in outcomes if error is not None), None)
        if first is not None:
            raise first

    def gather_to_main(self, value: _T) -> list[_T]:
        """Collect one object of every process at process 0, by rank; the others get an empty list."""
        if self.size == 1:
            return [value]
        gathered: list[_T | None] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, gathered, dst=0, group=self.patient)
        return [] if gathered is None else gathered  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.patient)


def processes(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a launcher says about this process: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Empty without a launcher. ``srun`` speaks of SLURM_PROCID and the like; the address of the first node has to be
    exported by the script when there are several.

    Raises:
        ConfigError: srun started tasks on several nodes and MASTER_ADDR is missing.
    """
    if "RANK" in environment:
        return {}
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if "SLURM_PROCID" not in environment or tasks == 1:
        return {}
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    if nodes > 1 and "MASTER_ADDR" not in environment:
        raise ConfigError(
            f"srun started {tasks} tasks on {nodes} nodes, but MASTER_ADDR is not set; export it in the job script: "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1).'
        )
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": environment.get("MASTER_PORT", str(20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000)),
    }


def is_main_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process talks to the user, by what its launcher says; also before and after :func:`join`."""
    return {**environment, **processes(environment)}.get("RANK", "0") == "0"


def launched_alone(environment: Mapping[str, str] = os.environ) -> str | None:
    """A sentence of warning when a launcher is there but told this process no rank; None otherwise."""
    if "RANK" in environment or not any(hint in environment for hint in _HINTS):
        return None
    return (
        "accelerate started this process without a rank, so it trains alone; for several processes use "
        "`accelerate launch --multi_gpu` or an FSDP configuration, or torchrun."
    )


@contextmanager
def join(device: torch.device, *, timeout_minutes: float) -> Iterator[World]:
    """Join the processes of this run, and leave them at the end.

    Args:
        device: Of the run; with CUDA each process takes the one of its local rank.
        timeout_minutes: How long a process waits for the others within a step before it gives up.

    Raises:
        ConfigError: More processes on this machine than GPUs, or a device that only one process can use.
        LostProcessError: Another process ended while this one needed it.
    """
    if dist.is_initialized():  # the host program's own group
        yield _world(device, patient=dist.new_group(backend="gloo", timeout=_PATIENCE) if _many() else None)
        return
    os.environ.update(processes())
    device = _own_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = datetime.timedelta(minutes=timeout_minutes)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
    try:
        world = _world(device, patient=dist.new_group(backend="gloo", timeout=_PATIENCE) if _many() else None)
        with explain_lost_processes(world.rank, world.size):
            yield world
            world.wait()  # nobody leaves while another still saves
    except LostProcessError:
        raise  # the group is broken: leaving it properly would wait for the lost one
    except BaseException:
        _leave()
        raise
    _leave()


def alone(device: torch.device) -> World:
    """A process by itself, outside of any group."""
    return World(device)


def _many() -> bool:
    return dist.get_world_size() > 1


def _world(device: torch.device, *, patient: dist.ProcessGroup | None) -> World:
    return World(device, rank=dist.get_rank(), size=dist.get_world_size(), patient=patient)


def _own_device(device: torch.device) -> torch.device:
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "mps" and size > 1:
        raise ConfigError(
            f"{size} processes were started, but an MPS device serves one; start one, or set parallel.device=cpu."
        )
    if device.type != "cuda":
        return device
    if "SLURM_PROCID" in os.environ and torch.cuda.device_count() == 1:
        local = 0  # srun bound this task to a GPU of its own
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"Process {local} of this machine has no GPU: PyTorch finds {torch.cuda.device_count()}; "
            f"start as many processes as GPUs (torchrun --nproc-per-node {torch.cuda.device_count()})."
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
