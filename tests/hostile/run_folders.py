"""Hostile run folders and caches: one file of a finished tiny run is not what it was."""

import functools
import itertools
import shutil
from pathlib import Path

from tests.hostile.changes import FILES, HOLE, Change, changes_of, chosen
from tests.hostile.judge import Case

RECIPE = "RECIPE"
COMMANDS = {
    "resume": (("train", RECIPE, "--output", "run", "--resume"), ("run", ".cache")),
    "go on": (("train", RECIPE, "budget.student_updates=2", "--output", "run", "--resume"), ("run", ".cache")),
    "export": (("export", "run", "--output", "out"), ("out",)),
}
WRITTEN = ("run", ".cache")


def hostile_run_folders(origin: Path, count: int) -> list[Case]:
    """So many cases from a folder in which ``train tiny.yaml --output run`` was done with one update."""
    files = {str(file): changes_of(origin / file) for file in _files(origin)}
    turns = itertools.cycle(("export", "go on", "resume"))
    return [
        _case(origin, file, name, change, "go on" if file.startswith(".cache") else turn)
        for (file, name, change), turn in zip(chosen(files, count), turns, strict=False)
    ]


def holes_in_run_folders(origin: Path) -> list[Case]:
    """Every file in turn is a hole of 16 GiB, which whoever sets no limit reads to its end."""
    return [
        _case(origin, str(file), HOLE, FILES[HOLE], turn) for file in _files(origin) for turn in ("export", "go on")
    ]


def _files(origin: Path) -> list[Path]:
    found = [path for name in WRITTEN for path in (origin / name).rglob("*") if path.is_file()]
    return sorted(path.relative_to(origin) for path in found if path.name != ".lock")


def _case(origin: Path, file: str, name: str, change: Change, turn: str) -> Case:
    arguments, writes = COMMANDS[turn]
    # the recipe stays beside its prompts: their place is one of its settings
    arguments = tuple(str(origin / "tiny.yaml") if part == RECIPE else part for part in arguments)
    prepare = functools.partial(_prepare, origin=origin, file=file, change=change)
    return Case(f"{file} {name}", arguments, prepare, writes)


def _prepare(folder: Path, *, origin: Path, file: str, change: object) -> None:
    for name in WRITTEN:
        shutil.copytree(origin / name, folder / name)
    assert callable(change)
    change(folder / file)
