"""The page on the published numbers: its settings exist, and its hours are those of the table that is made of plans."""

import re
from pathlib import Path

import pytest

from fewstep.config.recipe import load_recipe

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reproducing.md").read_text()
ABLATIONS = re.findall(r"`'?((?:terms|schedule)[.\w]*=[^`']+)'?`", PAGE)
RECIPES = sorted(set(re.findall(r"fewstep (?:train|plan) ([\w-]+)", PAGE)))


@pytest.mark.parametrize("override", ABLATIONS)
def test_an_ablation_of_the_page_is_another_run(override: str) -> None:
    assert load_recipe("sd3-medium", [override]) != load_recipe("sd3-medium")


def test_every_ablation_of_the_published_table_has_its_setting() -> None:
    assert len(ABLATIONS) == 6


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_command_of_the_page_trains_a_recipe_on_a_named_prompt_set(recipe: str) -> None:
    (prompts,) = set(re.findall(r"'(prompts=[^']+)'", PAGE))
    assert load_recipe(recipe, [prompts]).config.prompts.kind == "set"


@pytest.mark.parametrize(
    ("recipe", "said"), re.findall(r"fewstep plan ([\w-]+) --gpus 8 .*?predicts (\d+) hours", PAGE, re.DOTALL)
)
def test_the_hours_of_the_page_are_those_of_the_table_of_plans(recipe: str, said: str) -> None:
    (row,) = re.findall(rf"^\| {recipe} \| full \| 8 \|.*$", (DOCS / "scaling.md").read_text(), re.MULTILINE)
    assert f", {said} h:" in row.split("|")[-2]
