"""Hostile run folders and caches: one file of a finished tiny run is not what it was."""

import functools
import shutil
from pathlib import Path

from tests.hostile.changes import changes_of, chosen
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
    found = [path for name in WRITTEN for path in (origin / name).rglob("*") if path.is_file() and path.name != ".lock"]
    files = {str(path.relative_to(origin)): changes_of(path) for path in found}
    cases = []
    turns = ("export", "go on", "resume")
    for number, (file, name, change) in enumerate(chosen(files, count)):
        turn = turns[number % len(turns)]
        if file.startswith(".cache"):
            turn = "go on"
        arguments, writes = COMMANDS[turn]
        # the recipe stays beside its prompts: their place is one of its settings
        arguments = tuple(str(origin / "tiny.yaml") if part == RECIPE else part for part in arguments)
        cases.append(
            Case(
                f"{file} {name}",
                arguments,
                functools.partial(_prepare, origin=origin, file=file, change=change),
                writes,
            )
        )
    return cases


def _prepare(folder: Path, *, origin: Path, file: str, change: object) -> None:
    for name in WRITTEN:
        shutil.copytree(origin / name, folder / name)
    assert callable(change)
    change(folder / file)
