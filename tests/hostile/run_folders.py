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


LINES = {
    "a value that no float holds": '{"step": 0, "loss/dm": ' + "9" * 400 + "}",
    "a step that no float holds": '{"step": ' + "9" * 400 + "}",
    "a step beyond 64 bits": '{"step": 1' + "0" * 30 + ', "loss/dm": 1}',
    "extremes": '{"step": 0, "loss/dm": 1.7e308}\n{"step": 1, "loss/dm": -1.7e308, "loss/ca": NaN}',
    "names": '{"step": 0, "loss/\\u001b[31m": 1, "": 2, "' + "x" * 5000 + '": 3}',
    "many figures": '{"step": 0, ' + ", ".join(f'"evaluation/k{i}": {i}' for i in range(20_000)) + "}",
}
"""In place of what metrics.jsonl has to say."""
LOOKS = (
    ("runs", "runs"),
    ("show", "runs/a", "--output", "curves.html"),
    ("compare", "runs/a", "runs/b", "--output", "curves.png"),
    ("export", "runs/a", "--output", "out"),
)


def hostile_metrics(origin: Path) -> list[Case]:
    """Every look at a run of which metrics.jsonl says what no training wrote."""

    def prepare(folder: Path, text: str) -> None:
        for name in ("a", "b"):
            shutil.copytree(origin / "run", folder / "runs" / name)
        (folder / "runs" / "a" / "metrics.jsonl").write_text(f"{text}\n")

    written = ("curves.html", "curves.png", "out")
    return [
        Case(f"metrics.jsonl has {name}", look, functools.partial(prepare, text=text), written)
        for name, text in LINES.items()
        for look in LOOKS
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
