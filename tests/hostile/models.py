"""Hostile models: one thing is wrong with a tiny diffusers folder that was right."""

import functools
import shutil
from pathlib import Path

from tests.hostile.changes import changes_of, chosen
from tests.hostile.judge import Case

COMMANDS = {
    "check": (("check", "teacher"), ()),
    "sample": (("sample", "teacher", "--prompt", "x", "--steps", "1", "--output", "drawn.png"), ("drawn.png",)),
    "train": (("train", "tiny.yaml", "--output", "run"), ("run", ".cache")),
    "embed": (("embed", "tiny.yaml", "--root", "runs"), ("runs",)),
}


def hostile_models(origin: Path, count: int) -> list[Case]:
    """So many cases from the folder that ``write_inputs`` made; most are drawn from, and all commands are tried."""
    teacher = origin / "teacher"
    files = {str(path.relative_to(teacher)): changes_of(path) for path in teacher.rglob("*") if path.is_file()}
    cases = []
    turns = ("sample", "check", "sample", "embed", "sample", "check", "train")
    for number, (file, name, change) in enumerate(chosen(files, count)):
        arguments, writes = COMMANDS[turns[number % len(turns)]]
        prepare = functools.partial(_prepare, origin=origin, file=file, change=change)
        cases.append(Case(f"{file} {name}", arguments, prepare, writes))
    return cases


def _prepare(folder: Path, *, origin: Path, file: str, change: object) -> None:
    shutil.copytree(origin / "teacher", folder / "teacher")
    shutil.copy(origin / "prompts.txt", folder)
    text = (origin / "tiny.yaml").read_text().replace(str(origin / "teacher"), "./teacher")
    (folder / "tiny.yaml").write_text(text.replace('"student_updates": 3', '"student_updates": 1'))
    assert callable(change)
    change(folder / "teacher" / file)
