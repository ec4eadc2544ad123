"""Recipes of installed packages: named like fewstep's own, and never in the way of others."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from fewstep.config import load_recipe, recipe_names
from fewstep.config.prompt_sources import PromptFile
from fewstep.errors import ConfigError

Install = Callable[[str, str, Mapping[str, str]], Path]
MINE = "# mine: a recipe of a package\nbase: digits\nbatch: 4\nprompts: {kind: file, path: prompts.txt}\n"
REGISTERED = "[fewstep.recipes]\nmine = mine_recipes.short\n"


@pytest.fixture
def mine(install: Install) -> Path:
    """A package whose modules must not be imported to find its recipes."""
    files = {
        "mine_recipes/__init__.py": "raise RuntimeError('imported')\n",
        "mine_recipes/short/mine.yaml": MINE,
        "mine_recipes/short/mine-fast.yaml": "# mine-fast: shorter\nbase: mine\nbudget: {student_updates: 3}\n",
    }
    return install("mine-package", REGISTERED, files)


def test_a_package_adds_recipes_by_name_without_being_imported(mine: Path) -> None:
    assert {"mine", "mine-fast", "digits"} <= set(recipe_names())
    loaded = load_recipe("mine", ["seed=3"])
    assert (loaded.name, loaded.config.batch, loaded.config.seed) == ("mine", 4, 3)
    assert "mine_recipes" not in sys.modules


def test_a_recipe_of_a_package_is_the_base_of_others(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: mine-fast\nseed: 5\n")
    config = load_recipe(tmp_path / "own.yaml").config
    assert (config.batch, config.budget.student_updates, config.seed) == (4, 3, 5)


def test_paths_in_a_recipe_of_a_package_are_relative_to_its_file(mine: Path) -> None:
    prompts = load_recipe("mine").config.prompts
    assert isinstance(prompts, PromptFile)
    assert prompts.path == str((mine / "mine_recipes" / "short" / "prompts.txt").resolve())


def test_a_problem_names_the_package_of_the_recipe(mine: Path) -> None:
    (mine / "mine_recipes" / "short" / "mine.yaml").write_text("base: digits\nbatch: many\n")
    with pytest.raises(
        ConfigError, match=r"^batch is 'many', from recipe mine of the package mine-package; it must be"
    ):
        load_recipe("mine")


def test_the_list_and_the_page_of_a_recipe_of_a_package_are_shown(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert execute(["recipes"]) == 0
    assert "a recipe of a package (of the package mine-package)" in capsys.readouterr().out
    assert execute(["recipe", "show", "mine"]) == 0
    assert capsys.readouterr().out == MINE


@pytest.mark.parametrize("other", ["digits", "mine"])
def test_a_name_of_two_owners_is_refused_where_it_is_asked_for(mine: Path, install: Install, other: str) -> None:
    install("other-package", "[fewstep.recipes]\nx = other_recipes\n", {f"other_recipes/{other}.yaml": MINE})
    with pytest.raises(ConfigError, match=rf"recipe {other} is of more than one installed package: .*other-package"):
        load_recipe(other)
    assert load_recipe("sd15").name == "sd15"


@pytest.mark.parametrize("value", ["nowhere.recipes", "mine_recipes", "mine_recipes.none:x", "json"])
def test_a_package_without_its_recipes_is_told_and_stops_no_other(
    install: Install, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    install("broken-package", f"[fewstep.recipes]\nx = {value}\n", {"mine_recipes/__init__.py": ""})
    assert load_recipe("digits").name == "digits"
    told = f"The package broken-package registers {value} as a folder of recipes, but there is no such folder"
    with pytest.raises(ConfigError, match=rf"There is no recipe 'mine'.*{told}"):
        load_recipe("mine")
    assert execute(["recipes"]) == 0
    assert capsys.readouterr().err.startswith(told)


def test_a_recipe_that_is_no_text_is_told_and_the_others_are_listed(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "mine_recipes" / "short" / "mine.yaml").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("COLUMNS", "400")
    assert execute(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert "The recipe mine of the package mine-package cannot be read" in printed
    assert "CDM on the embedded teacher" in printed
