"""The files that ship with the package: where they are, what they hold, and whether they are whole.

Each task has a folder of its own, with a manifest: a teacher, what judges its pictures, real features to compare with,
and measured rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from fewstep.errors import CheckpointError
from fewstep.files import load_json

DIGITS, SCENES = "digits", "scenes"
TEACHER_FOLDER = "teacher"
REFERENCE_FILE = "reference.safetensors"
ROWS_FILE = "rows.json"
MANIFEST_FILE = "manifest.json"
REMEDY = "Install fewstep again"


def assets_folder(task: str) -> Path:
    """The folder of a task's files inside the installed package, or what stands in its place."""
    return _in_place.get().get(task) or Path(str(resources.files("fewstep.embedded"))) / "assets" / task


_in_place: ContextVar[Mapping[str, Path]] = ContextVar("in_place", default=MappingProxyType({}))


@contextmanager
def in_place_of_shipped(task: str, folder: Path) -> Iterator[None]:
    """Inside the block ``folder`` is used instead of a task's files: so a rebuild measures what it has made."""
    before = _in_place.get()
    _in_place.set({**before, task: folder})
    try:
        yield
    finally:
        _in_place.set(before)


def sha256_of(path: Path) -> str:
    """Hash a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path) -> None:
    """Record the SHA-256 of every file under ``folder`` in its ``manifest.json``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    (folder / MANIFEST_FILE).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")


def check_files(task: str, *, under: str = "") -> Path:
    """Compare files with the manifest.

    Args:
        task: Whose files.
        under: Check only this file or the files of this folder.

    Returns:
        The path of ``under`` inside the assets.

    Raises:
        CheckpointError: A file is missing or its content is not the recorded one; the message names it.
    """
    root = assets_folder(task)
    manifest = load_json(root / MANIFEST_FILE, dict[str, str], cure=REMEDY)
    recorded = {name: value for name, value in manifest.items() if _is_under(name, under)}
    if not recorded:
        raise CheckpointError(f"{root / MANIFEST_FILE} records no file {under!r}. {REMEDY}.")
    for name, expected in recorded.items():
        path = root / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing from the embedded teacher's files. {REMEDY}.")
        found = sha256_of(path)
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 begins {found[:12]}, in the manifest {expected[:12]}. {REMEDY}."
            )
    return root / under


def _is_under(name: str, under: str) -> bool:
    return not under or name == under or name.startswith(f"{under}/")
