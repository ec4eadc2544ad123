"""Publishing a checkpoint: whole or absent, whenever the process dies.

    .saving-NAME-UUID  --files, manifest, fsync-->  rename to step-00000400  -->  latest  -->  older ones removed

The rename is what publishes it, so a killed process leaves nothing that a resume takes for whole.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from fewstep.distributed.world import World, alone
from fewstep.errors import CheckpointError
from fewstep.files import fsync, interruption, whole_file
from fewstep.runs.checkpoint import INDEX, first_cause, one_process
from fewstep.runs.places import BEST, HEALTHY, LATEST, MANIFEST, checkpoints, pointed_to
from fewstep.seals import Seal, seal


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    *,
    step: int,
    keep_last: int,
    is_best: bool = False,
    is_healthy: bool = False,
    about: Mapping[str, Any] | None = None,
    world: World | None = None,
) -> Path:
    """Publish ``state`` as ``folder/step-XXXXXXXX`` and drop all but the newest ``keep_last``, best and healthy.

    Every process of the run calls it and writes its own parts; the main one publishes.

    Args:
        folder: The run's checkpoint folder; made when missing.
        state: Nested mapping of tensors, spread over the processes or not, and plain values.
        step: Completed steps; names the checkpoint.
        keep_last: Checkpoints to keep, this one included.
        is_best: Keep this one beyond that, until a later one is the best.
        is_healthy: The same, until a later one is healthy.
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
    becomes = [pointer for pointer, meant in ((BEST, is_best), (HEALTHY, is_healthy)) if meant]
    world.from_main(lambda: _prune(folder, published.name, keep_last=keep_last, becomes=becomes))
    return published


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
        raise _not_written(published, first_cause(error)) from error
    return unfinished


def _write_parts(unfinished: Path, state: Mapping[str, Any], world: World) -> _Written:
    try:
        with one_process():
            dcp.save(dict(state), checkpoint_id=unfinished, process_group=world.patient, no_dist=world.size == 1)
        names = [path.name for path in unfinished.glob(f"__{world.rank}_*.distcp")]
        return _Written({name: _sealed(unfinished / name) for name in [*names, *(INDEX,) * world.is_main]})
    except (OSError, CheckpointException, RuntimeError) as error:
        if (stopped := interruption(error)) is not None:
            raise stopped from None
        if world.size > 1 and not isinstance(error, (OSError, CheckpointException)):
            raise  # the exchange with the others broke; they cannot be told
        return _Written({}, problem=first_cause(error))


def _publish(unfinished: Path, published: Path, written: list[_Written], about: Mapping[str, Any]) -> None:
    folder = published.parent
    try:
        problem = next((part.problem for part in written if part.problem is not None), None)
        if problem is not None:
            raise _not_written(published, problem)
        manifest = unfinished / MANIFEST
        files = {name: known.model_dump() for part in written for name, known in part.files.items()}
        manifest.write_text(json.dumps({"files": files, "about": about}, indent=1))
        fsync(manifest)
        fsync(unfinished)
        os.rename(unfinished, published)
        fsync(folder)
        _point(folder / LATEST, published.name)
    except OSError as error:
        raise _not_written(published, first_cause(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def drop_later_checkpoints(folder: Path, last: Path) -> None:
    """Remove the checkpoints behind ``last``, so that a resume goes on from there, and pointers to them."""
    for later in checkpoints(folder):
        if later.name > last.name:
            if pointed_to(folder / BEST) == later:
                (folder / BEST).unlink()
            _remove(later)
    _point(folder / LATEST, last.name)


def _prune(folder: Path, newest: str, *, keep_last: int, becomes: Sequence[str]) -> None:
    for pointer in becomes:
        _point(folder / pointer, newest)
    kept = [pointed_to(folder / pointer) for pointer in (BEST, HEALTHY)]
    for old in checkpoints(folder)[:-keep_last]:
        if old not in kept:
            _remove(old)


def _point(pointer: Path, name: str) -> None:
    """Say in a small file which checkpoint is meant, for people, scripts and exports; a resume looks at the folders."""
    with whole_file(pointer, durable=True) as unfinished:
        unfinished.write_text(f"{name}\n")


def _not_written(published: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {published} could not be written ({reason}); earlier checkpoints are untouched. "
        "Free some space or fix the permissions, then go on with --resume."
    )


def _sealed(file: Path) -> Seal:
    """Bring a file to the disk; what the manifest says about it."""
    fsync(file)
    return seal(file)


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
