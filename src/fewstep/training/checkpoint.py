"""Checkpoints of a run: whole or absent, checked before they are read.

    .saving-NAME-UUID  --files, manifest, fsync-->  rename to step-00000400  -->  latest  -->  older ones removed

A checkpoint is a ``torch.distributed.checkpoint`` folder beside a ``manifest.json`` with the size and SHA-256 of each
file. The rename is what publishes it, so a killed process leaves nothing that a resume takes for whole.
"""

import json
import os
import re
import shutil
import uuid
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
from fewstep.errors import CheckpointError, shown
from fewstep.files import UnreadableError, interruption, read_json
from fewstep.seals import BrokenSealError, Seal, Seals, seal, verify
from fewstep.training.plain_reading import PlainPlanner, PlainReader

MANIFEST = "manifest.json"
LATEST, BEST = "latest", "best"
INDEX = ".metadata"
PART_BYTES = 1 << 30  # read at once where a whole section would be too much
MAX_POINTER_BYTES = 100
_PUBLISHED = re.compile(r"step-[0-9]{8}")


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    *,
    step: int,
    keep_last: int,
    is_best: bool = False,
    about: Mapping[str, Any] | None = None,
    world: World | None = None,
) -> Path:
    """Publish ``state`` as ``folder/step-XXXXXXXX`` and drop all but the newest ``keep_last`` and the best.

    Every process of the run calls it and writes its own parts; the main one publishes.

    Args:
        folder: The run's checkpoint folder; made when missing.
        state: Nested mapping of tensors, spread over the processes or not, and plain values.
        step: Completed steps; names the checkpoint.
        keep_last: Checkpoints to keep, this one included.
        is_best: Keep this one beyond that, until a later one is the best.
        about: Plain data that the manifest keeps beside the files: settings and versions.
        world: The processes of the run; this one alone unless given.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    world = world or alone(torch.device("cpu"))
    published = folder / f"step-{step:08d}"
    unfinished = world.from_main(lambda: _begin(folder, published))
    if unfinished is None:
        return published
    written = world.gather_to_main(_write_parts(unfinished, state, world))
    world.from_main(lambda: _publish(unfinished, published, written, about or {}))
    world.from_main(lambda: _prune(folder, published.name, keep_last=keep_last, is_best=is_best))
    return published


class Manifest(BaseModel):
    """``manifest.json``: what a checkpoint's files hold, and what it says of itself."""

    files: Seals
    about: dict[str, Any] = {}


@dataclass(frozen=True)
class _Written:
    """What one process wrote: its files with their sizes and hashes, or why it could not."""

    files: dict[str, Seal]
    problem: str | None = None


def _begin(folder: Path, published: Path) -> Path | None:
    """Make the folder of an unfinished checkpoint; None when this step was published before."""
    if published.exists():
        return None
    unfinished = folder / f".saving-{published.name}-{uuid.uuid4().hex[:8]}"
    try:
        _sweep(folder)
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise _not_written(published, _first_cause(error)) from error
    return unfinished


def _write_parts(unfinished: Path, state: Mapping[str, Any], world: World) -> _Written:
    try:
        with _one_process():
            dcp.save(dict(state), checkpoint_id=unfinished, process_group=world.patient, no_dist=world.size == 1)
        names = [path.name for path in unfinished.glob(f"__{world.rank}_*.distcp")]
        return _Written({name: _sealed(unfinished / name) for name in [*names, *(INDEX,) * world.is_main]})
    except (OSError, CheckpointException, RuntimeError) as error:
        if (stopped := interruption(error)) is not None:
            raise stopped from None
        if world.size > 1 and not isinstance(error, (OSError, CheckpointException)):
            raise  # the exchange with the others broke; they cannot be told
        return _Written({}, problem=_first_cause(error))


def _publish(unfinished: Path, published: Path, written: list[_Written], about: Mapping[str, Any]) -> None:
    folder = published.parent
    try:
        problem = next((part.problem for part in written if part.problem is not None), None)
        if problem is not None:
            raise _not_written(published, problem)
        manifest = unfinished / MANIFEST
        files = {name: known.model_dump() for part in written for name, known in part.files.items()}
        manifest.write_text(json.dumps({"files": files, "about": about}, indent=1))
        _fsync(manifest)
        _fsync(unfinished)
        os.rename(unfinished, published)
        _fsync(folder)
        _point(folder / LATEST, published.name)
    except OSError as error:
        raise _not_written(published, _first_cause(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _prune(folder: Path, newest: str, *, keep_last: int, is_best: bool) -> None:
    if is_best:
        _point(folder / BEST, newest)
    best = pointed_to(folder / BEST)
    for old in checkpoints(folder)[:-keep_last]:
        if old != best:
            _remove(old)


def _point(pointer: Path, name: str) -> None:
    """Say in a small file which checkpoint is meant, for people, scripts and exports; a resume looks at the folders."""
    unfinished = pointer.with_name(f".{pointer.name}")
    unfinished.write_text(f"{name}\n")
    _fsync(unfinished)  # else a power failure can leave an empty file under the name
    unfinished.replace(pointer)


def pointed_to(pointer: Path) -> Path | None:
    """The checkpoint that ``latest`` or ``best`` names; None when there is none yet.

    Raises:
        CheckpointError: It names no checkpoint.
    """
    if not pointer.is_file():
        return None
    with pointer.open("rb") as file:
        name = file.read(MAX_POINTER_BYTES).decode("utf-8", errors="replace").strip()
    if not is_published(name):
        raise CheckpointError(
            f"{pointer} says {shown(name)}, which is no checkpoint's name (such as step-00000400). Delete that file, "
            f"or write the name of a folder in {pointer.parent} into it."
        )
    return pointer.parent / name


def is_published(name: str) -> bool:
    """Whether this is a checkpoint's name."""
    return _PUBLISHED.fullmatch(name) is not None


def _not_written(published: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {published} could not be written ({reason}); earlier checkpoints are untouched. "
        "Free some space or fix the permissions, then go on with --resume."
    )


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
        with _one_process():
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
            f"The checkpoint {checkpoint} does not fit this run ({_first_cause(error)}); "
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

    def parts(self, max_bytes: int = PART_BYTES) -> Iterator[dict[str, Tensor]]:
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


def checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _PUBLISHED.fullmatch(path.name))


def completed_steps(checkpoint: Path) -> int:
    """Steps a checkpoint's run had completed."""
    return int(checkpoint.name.removeprefix("step-"))


def verify_checkpoint(checkpoint: Path, *, rank: int = 0, size: int = 1) -> dict[str, Seal]:
    """Compare every file with the manifest; of this process's share of them, the content.

    Returns:
        The seals of the files, by name.

    Raises:
        CheckpointError: Naming the file, and what to do.
    """
    remedy = f"Delete {checkpoint} and resume from the checkpoint before it, or start anew"
    if checkpoint.is_symlink():
        raise CheckpointError(f"The checkpoint {checkpoint} is a symbolic link; put the folder itself there.")
    try:
        seals = read_json(checkpoint / MANIFEST, Manifest).files
        if INDEX not in seals:
            raise UnreadableError(f"it lists no {INDEX}")
    except UnreadableError as error:
        raise CheckpointError(f"The checkpoint {checkpoint} has no readable {MANIFEST}: {error}. {remedy}.") from error
    try:
        verify(checkpoint, seals, share=slice(rank, None, size))
    except BrokenSealError as error:
        raise CheckpointError(f"The checkpoint file {error.path} {error}. {remedy}.") from error
    return seals


@contextmanager
def _one_process() -> Iterator[None]:
    """Without torch's warning that a checkpoint of one process is a checkpoint of one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def _sealed(file: Path) -> Seal:
    """Bring a file to the disk; what the manifest says about it."""
    _fsync(file)
    return seal(file)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind."""
    if folder.is_dir():
        for path in folder.glob(".saving-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in folder.glob(".removing-*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    """Take a checkpoint out of sight before deleting it, so that no half of it can be resumed from."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name}")
    os.rename(checkpoint, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _first_cause(error: BaseException) -> str:
    """The innermost message of an exception chain, on one line."""
    if isinstance(error, CheckpointException) and error.failures:
        failure = next(iter(error.failures.values()))[0]
        return _first_cause(failure)
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
