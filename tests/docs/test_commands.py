"""Every `fewstep` command in a page's blocks of code has options, recipes and settings that exist."""

import re
import shlex
from typing import Any

import pytest
import typer.main

from fewstep.cli.app import app
from fewstep.config.recipe_files import recipe_names
from tests.docs.test_code_names import FENCE, PAGES, ROOT

COMMANDS = typer.main.get_command(app)
# recipes that a page makes up for its reader, or has its reader write
OWN_RECIPES = {"RECIPE", "digits-sds", "mine.yaml", "my.yaml", "tiny.yaml"}


def commands(page: str) -> list[list[str]]:
    """The words of every command, lines that go on put together and comments left out."""
    code = "\n".join(FENCE.findall((ROOT / page).read_text(encoding="utf-8")))
    lines = re.findall(r"(?:^|-m |\| |run |srun .*)(fewstep .*)$", code.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def problem(words: list[str]) -> str | None:
    """What does not exist, or None."""
    command: Any = COMMANDS
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if command.name == "evaluate":  # which measures when none of its commands is named
        command = next(
            found for name, found in command.commands.items() if name not in ("compare", "convert", "metrics")
        )
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    asked = {word.partition("=")[0] for word in words if word.startswith("--")}
    if missing := asked - known - {"--help"}:
        return f"{command.name} has no {', '.join(sorted(missing))}"
    if command.name in ("train", "plan", "embed") and words and words[0] not in {*recipe_names(), *OWN_RECIPES}:
        return f"there is no recipe {words[0]}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page: str) -> None:
    assert [found for words in commands(page) if (found := problem(words)) is not None] == []


def test_commands_are_found_in_pages() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sample out --ofload", "sample has no --ofload"),
        ("train sd4 student.lr=1", "there is no recipe sd4"),
        ("evaluate compare a b --nothing", "compare has no --nothing"),
        ("train digits --resume", None),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, said: str | None) -> None:
    assert problem(line.split()) == said
