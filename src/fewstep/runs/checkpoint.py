"""Checkpoints of a run, checked before they are read.

A checkpoint is a ``torch.distributed.checkpoint`` folder beside a ``manifest.json`` with the size and SHA-256 of each
file; :mod:`fewstep.runs.saving` writes it.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from pydantic import BaseModel
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from fewstep.distributed.world import World, alone
from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError, interruption, read_json
from fewstep.runs.places import MANIFEST, completed_steps
from fewstep.runs.safe_reading import PlainPlanner, PlainReader
from fewstep.seals import BrokenSealError, Seal, Seals, verify

INDEX = ".metadata"
_PART_BYTES = 1 << 30  # read at once where a whole section would be too much


class _Manifest(BaseModel):
    """``manifest.json``: what a checkpoint's files hold, and what it says of itself."""

    files: Seals
    about: dict[str, Any] = {}


def load_checkpoint(checkpoint: Path, state: dict[str, Any], world: World | None = None) -> None:
    """Fill ``state`` in place from a checkpoint after checking its files; every process of the run calls it.

    Raises:
        CheckpointError: A file is missing, truncated or altered, or a field is missing, unknown, or of another type or
            shape than in ``state``.
    """
    world = world or alone(torch.device("cpu"))
    seals: dict[str, Seal] = {}
    world.all_or_none(lambda: seals.update(verify_checkpoint(checkpoint, rank=world.rank, size=world.size)))
    _read(checkpoint, seals, state, world, whole=True)


def _read(
    checkpoint: Path, seals: Mapping[str, Seal], state: dict[str, Any], world: World, *, whole: bool = False
) -> None:
    reader = PlainReader(checkpoint, seals)

    def look() -> None:  # before torch does, which prints what it stumbles over
        _require_index(reader, checkpoint)

    world.all_or_none(look)
    try:
        with one_process():
            dcp.load(
                state,
                storage_reader=reader,
                planner=PlainPlanner(whole=whole),
                process_group=world.patient,
                no_dist=world.size == 1,
            )
    except (CheckpointException, UnpicklingError, RuntimeError, ValueError) as error:
        if (stopped := interruption(error)) is not None:
            raise stopped from None
        if world.size > 1 and isinstance(error, RuntimeError):
            raise  # the exchange with the others broke: what is wrong with the checkpoint comes as CheckpointException
        raise CheckpointError(
            f"The checkpoint {checkpoint} does not fit this run ({first_cause(error)}); "
            f"use the recipe it was written with, or start a new run folder."
        ) from error


def _require_index(reader: PlainReader, checkpoint: Path) -> Metadata:
    try:
        return reader.read_metadata()
    except UnpicklingError as error:
        raise CheckpointError(
            f"The index of the checkpoint {checkpoint} cannot be read ({error}). Delete {checkpoint} and resume "
            "from the checkpoint before it, or start anew."
        ) from error


@dataclass(frozen=True)
class StoredTensors:
    """One section's tensors of a checkpoint, on disk, whole whatever number of processes wrote them.

    Attributes:
        checkpoint: The checkpoint; its files were checked.
        section: For example ``ema``.
        empty: Tensors by name, on the meta device.
        seals: Of the checkpoint's files.
    """

    checkpoint: Path
    section: str
    empty: dict[str, Tensor]
    seals: Mapping[str, Seal]

    def parts(self, max_bytes: int = _PART_BYTES) -> Iterator[dict[str, Tensor]]:
        """Read them a part at a time, so that no more than ``max_bytes`` (or one tensor) is in memory at once."""
        names: list[str] = []
        size = 0
        for name, tensor in self.empty.items():
            if names and size + tensor.nbytes > max_bytes:
                yield self._read(names)
                names, size = [], 0
            names.append(name)
            size += tensor.nbytes
        if names:
            yield self._read(names)

    def all(self) -> dict[str, Tensor]:
        """Read all of them at once."""
        return self._read(list(self.empty))

    def _read(self, names: Sequence[str]) -> dict[str, Tensor]:
        tensors = {name: torch.empty_like(self.empty[name], device="cpu") for name in names}
        _read(self.checkpoint, self.seals, {self.section: tensors}, alone(torch.device("cpu")))
        return tensors


def stored_tensors(checkpoint: Path, section: str) -> StoredTensors:
    """Find one section's tensors, without a network to put them into; none when the section is not there.

    Raises:
        CheckpointError: A file is missing, truncated or altered.
    """
    seals = verify_checkpoint(checkpoint)
    metadata = _require_index(PlainReader(checkpoint, seals), checkpoint).state_dict_metadata
    prefix = f"{section}."
    empty = {
        key.removeprefix(prefix): torch.empty(stored.size, dtype=stored.properties.dtype, device="meta")
        for key, stored in metadata.items()
        if key.startswith(prefix) and isinstance(stored, TensorStorageMetadata)
    }
    return StoredTensors(checkpoint, section, empty, seals)


def stored_about(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: Its manifest cannot be read.
    """
    return _manifest(checkpoint).about


def stored_steps(checkpoint: Path, seals: Mapping[str, Seal]) -> int:
    """Steps a checkpoint's run had completed, by what it holds.

    Args:
        seals: Of its files, which were checked.

    Raises:
        CheckpointError: It does not say, or its name says another number.
    """
    state = {"progress": {"step": 0}}
    _read(checkpoint, seals, state, alone(torch.device("cpu")))
    require_own_name(checkpoint, state["progress"]["step"])
    return state["progress"]["step"]


def require_own_name(checkpoint: Path, steps: int) -> None:
    """Raise CheckpointError when a checkpoint is not called by its number of steps."""
    if steps != completed_steps(checkpoint):
        raise CheckpointError(
            f"The checkpoint {checkpoint} holds step {steps}, which is not the one of its name; give the folder its "
            f"own name back, step-{steps:08d}, or delete it."
        )


def verify_checkpoint(checkpoint: Path, *, rank: int = 0, size: int = 1) -> dict[str, Seal]:
    """Compare every file with the manifest; of this process's share of them, the content.

    Returns:
        The seals of the files, by name.

    Raises:
        CheckpointError: Naming the file, and what to do.
    """
    if checkpoint.is_symlink():
        raise CheckpointError(f"The checkpoint {checkpoint} is a symbolic link; put the folder itself there.")
    seals = _manifest(checkpoint).files
    try:
        verify(checkpoint, seals, share=slice(rank, None, size))
    except BrokenSealError as error:
        raise CheckpointError(f"The checkpoint file {error.path} {error}. {_remedy(checkpoint)}.") from error
    return seals


def _manifest(checkpoint: Path) -> _Manifest:
    try:
        manifest = read_json(checkpoint / MANIFEST, _Manifest)
        if INDEX not in manifest.files:
            raise UnreadableError(f"it lists no {INDEX}")
    except UnreadableError as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint} has no readable {MANIFEST}: {error}. {_remedy(checkpoint)}."
        ) from error
    return manifest


def _remedy(checkpoint: Path) -> str:
    return f"Delete {checkpoint} and resume from the checkpoint before it, or start anew"


@contextmanager
def one_process() -> Iterator[None]:
    """Without torch's warning that a checkpoint of one process is a checkpoint of one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def first_cause(error: BaseException) -> str:
    """The innermost message of an exception chain, on one line."""
    if isinstance(error, CheckpointException) and error.failures:
        failure = next(iter(error.failures.values()))[0]
        return first_cause(failure)
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
