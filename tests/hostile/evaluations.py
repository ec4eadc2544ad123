"""Hostile evaluations: one file of a finished one is not what it was, or leads out of its folder."""

import functools
import shutil
from pathlib import Path

from fewstep.cli.main import execute
from tests.hostile.changes import Change, changes_of, chosen
from tests.hostile.judge import Case, within
from tests.scores.tiny_digits import write_digits

METRICS = ("--metrics", "digits", "vendi", "--set", "vendi.extractor=digits", "--output", "ev")
COMMANDS = {
    "all": ("evaluate", "--pictures", "pictures", "--prompts", "digits", "--num-prompts", "3", *METRICS),
    "score": ("evaluate", "--phase", "score", *METRICS),
    "compare": ("evaluate", "compare", "ev", "other"),
}


def write_evaluation(folder: Path) -> None:
    """Three pictures, and what was found of them, in ``folder``."""
    write_digits(folder / "pictures", range(3))
    with within(folder):
        assert execute(COMMANDS["all"]) == 0


def hostile_evaluations(origin: Path, count: int) -> list[Case]:
    """So many cases from the folder that :func:`write_evaluation` made, and one for each folder that leads outside."""
    read = (".json", ".jsonl", ".safetensors", ".png")
    paths = sorted(path.relative_to(origin) for path in (origin / "ev").rglob("*"))
    files = {str(path): changes_of(origin / path) for path in paths if path.suffix in read}
    cases = []
    for number, (file, name, change) in enumerate(chosen(files, count)):
        turn = "compare" if file.endswith("scores.json") else ("score", "all")[number % 2]
        cases.append(_case(origin, file, name, change, turn))
    folders = [str(path) for path in paths if (origin / path).is_dir()]
    return cases + [_case(origin, path, "leads outside", _link_outside, "all") for path in folders]


def _case(origin: Path, file: str, name: str, change: Change, turn: str) -> Case:
    prepare = functools.partial(_prepare, origin=origin, file=file, change=change)
    return Case(f"{file} {name}", COMMANDS[turn], prepare, ("ev",))


def _prepare(folder: Path, *, origin: Path, file: str, change: Change) -> None:
    shutil.copytree(origin / "ev", folder / "ev")
    shutil.copytree(origin / "ev", folder / "other")
    shutil.copytree(origin / "pictures", folder / "pictures")
    change(folder / file)


def _link_outside(path: Path) -> None:
    here = next(parent for parent in path.absolute().parents if parent.name == "here")
    path.rename(here.parent / "outside")
    path.symlink_to(here.parent / "outside")
