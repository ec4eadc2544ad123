"""Where the parts of a run stand in its folder, and which checkpoints it has, by their names: loads no torch."""

import re
from pathlib import Path

from fewstep.errors import CheckpointError, shown

CONFIG = "config.json"
RUN = "run.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
SHEETS = "sheets"
CHECKPOINTS = "checkpoints"

MANIFEST = "manifest.json"
LATEST, BEST, HEALTHY = "latest", "best", "healthy"
SHEET = re.compile(r"update-(?P<update>\d+)(?P<size>-\d+x\d+)?\.png")
"""What a sample sheet is called: the student updates before it, and the pictures' size where there are several."""
_MAX_POINTER_BYTES = 100
_PUBLISHED = re.compile(r"step-[0-9]{8}")


def pointed_to(pointer: Path) -> Path | None:
    """The checkpoint that ``latest`` or ``best`` names; None when there is none yet.

    Raises:
        CheckpointError: It names no checkpoint.
    """
    if not pointer.is_file():
        return None
    with pointer.open("rb") as file:
        name = file.read(_MAX_POINTER_BYTES).decode("utf-8", errors="replace").strip()
    if not is_published(name):
        raise CheckpointError(
            f"{pointer} says {shown(name)}, which is no checkpoint's name (such as step-00000400). Delete that file, "
            f"or write the name of a folder in {pointer.parent} into it."
        )
    return pointer.parent / name


def is_published(name: str) -> bool:
    """Whether this is a checkpoint's name."""
    return _PUBLISHED.fullmatch(name) is not None


def checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first.

    Raises:
        CheckpointError: There is none, but a checkpoint under a name that is none, which nobody would go on from.
    """
    if not folder.is_dir():
        return []
    found = sorted(folder.iterdir())
    published = [path for path in found if is_published(path.name)]
    renamed = [path for path in found if not path.name.startswith(".") and (path / MANIFEST).is_file()]
    if renamed and not published:
        raise CheckpointError(
            f"{renamed[0]} is a checkpoint, but that is no checkpoint's name. Call it step- and the number of its "
            "steps in eight digits, such as step-00000400, or take it out of the folder."
        )
    return published


def sheet_name(update: int, size: str = "") -> str:
    """What :data:`SHEET` matches; a size is ``-HEIGHTxWIDTH``."""
    return f"update-{update:06d}{size}.png"


def sheets_in(folder: Path) -> list[Path]:
    """Sample sheets, the oldest first."""
    found = (path for path in folder.glob("*.png") if SHEET.fullmatch(path.name))
    return sorted(found, key=lambda path: (update_of(path), path.name))


def update_of(sheet: Path) -> int:
    """The student updates before a sample sheet, by its name."""
    told = SHEET.fullmatch(sheet.name)
    assert told is not None
    return int(told["update"])


def completed_steps(checkpoint: Path) -> int:
    """Steps a checkpoint's run had completed, by its name."""
    return int(checkpoint.name.removeprefix("step-"))
