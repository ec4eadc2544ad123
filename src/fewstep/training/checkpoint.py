"""Checkpoints of a run: whole or absent, checked before they are read.

    .saving-NAME-UUID  --files, manifest, fsync-->  rename to step-00000400  -->  older ones removed

A checkpoint is a ``torch.distributed.checkpoint`` folder beside a ``manifest.json`` with the size and SHA-256 of each
file. The rename is what publishes it, so a killed process leaves nothing that a resume takes for whole.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from fewstep.errors import CheckpointError
from fewstep.training.plain_reading import PlainPlanner, PlainReader

MANIFEST = "manifest.json"
_PUBLISHED = re.compile(r"step-\d{8}")


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, step: int, keep_last: int) -> Path:
    """Publish ``state`` as ``folder/step-XXXXXXXX`` and drop all but the newest ``keep_last``.

    Args:
        folder: The run's checkpoint folder; made when missing.
        state: Nested mapping of tensors and plain values.
        step: Completed steps; names the checkpoint.
        keep_last: Checkpoints to keep, this one included.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    published = folder / f"step-{step:08d}"
    if published.exists():
        return published
    _sweep(folder)
    unfinished = folder / f".saving-{published.name}-{uuid.uuid4().hex[:8]}"
    try:
        unfinished.mkdir(parents=True)
        with _one_process():
            dcp.save(dict(state), checkpoint_id=unfinished, no_dist=True)
        _write_manifest(unfinished)
        os.rename(unfinished, published)
        _fsync(folder)
    except (OSError, CheckpointException, RuntimeError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint {published} could not be written ({_first_cause(error)}); earlier checkpoints are "
            f"untouched. Free some space or fix the permissions, then go on with --resume."
        ) from error
    for old in checkpoints(folder)[:-keep_last]:
        _remove(old)
    return published


def load_checkpoint(checkpoint: Path, state: dict[str, Any]) -> None:
    """Fill ``state`` in place from a checkpoint after checking its files.

    Raises:
        CheckpointError: A file is missing, truncated or altered, or the checkpoint lacks a field of ``state``.
    """
    verify_checkpoint(checkpoint)
    try:
        with _one_process():
            dcp.load(state, storage_reader=PlainReader(checkpoint), planner=PlainPlanner(), no_dist=True)
    except (CheckpointException, UnpicklingError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint} does not fit this run ({_first_cause(error)}); "
            f"use the recipe it was written with, or start a new run folder."
        ) from error


def load_tensors(checkpoint: Path, section: str) -> dict[str, Tensor]:
    """Read one section's tensors, by name, without a network to put them into; empty when there is none.

    Raises:
        CheckpointError: A file is missing, truncated or altered.
    """
    verify_checkpoint(checkpoint)
    try:
        metadata = PlainReader(checkpoint).read_metadata().state_dict_metadata
    except UnpicklingError as error:
        raise CheckpointError(f"The index of the checkpoint {checkpoint} cannot be read ({error}).") from error
    prefix = f"{section}."
    tensors = {
        key.removeprefix(prefix): torch.empty(stored.size, dtype=stored.properties.dtype)
        for key, stored in metadata.items()
        if key.startswith(prefix) and isinstance(stored, TensorStorageMetadata)
    }
    if tensors:
        load_checkpoint(checkpoint, {section: tensors})
    return tensors


def checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _PUBLISHED.fullmatch(path.name))


def completed_steps(checkpoint: Path) -> int:
    """Steps a checkpoint's run had completed."""
    return int(checkpoint.name.removeprefix("step-"))


def verify_checkpoint(checkpoint: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: Naming the file, and what to do.
    """
    remedy = f"Delete {checkpoint} and resume from the checkpoint before it, or start anew"
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {checkpoint} has no readable {MANIFEST}. {remedy}.") from error
    for name, expected in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            raise CheckpointError(f"The checkpoint file {file} is missing. {remedy}.")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError(
                f"The checkpoint file {file} holds {size} bytes instead of {expected['bytes']}. {remedy}."
            )
        if _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"The checkpoint file {file} was altered (its SHA-256 differs). {remedy}.")


@contextmanager
def _one_process() -> Iterator[None]:
    """Without torch's warning that a checkpoint of one process is a checkpoint of one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _fsync(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=1))
    _fsync(manifest)
    _fsync(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
