"""Loss terms of installed packages: their settings are those of a recipe, and they are never lost from a run's."""

import sys

import pytest
import yaml

from fewstep.cli.main import execute
from fewstep.config import config_hash, load_recipe
from fewstep.config.identity import config_difference
from fewstep.config.recipe import validate
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.planning.cost import forward_units
from tests.config.outside_term import Install, add


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe("digits", overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_term(*overrides: str) -> RunConfig:
    return load_recipe("digits", ["terms.attract.strength=3.0", *overrides]).config


def test_a_term_of_a_package_is_a_term_with_its_own_settings(install: Install) -> None:
    add(install)
    term = with_term().terms.active()["attract"]
    assert term.model_dump()["strength"] == 3.0
    assert list(with_term().terms.weights()) == ["ca", "dm", "cdm", "attract"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "terms.attract.strength=fast",
            "terms.attract.strength is 'fast', from the command line; it must be a number.",
        ),
        (
            "terms.attract.strength=-1.0",
            "terms.attract.strength is -1.0, from the command line; it must be at least 0.",
        ),
        (
            "terms.attract.strenght=1",
            "There is no setting terms.attract.strenght, which the command line states; "
            "did you mean terms.attract.strength?",
        ),
        (
            "terms.attract.query={at: off_trajectory, sigma: {law: unifrm}}",
            "terms.attract.query.sigma.law is 'unifrm', from the command line; it must be one of 'uniform'",
        ),
        (
            "terms.atract={}",
            "There is no setting terms.atract, which the command line states; did you mean terms.attract?",
        ),
        ("terms.attract=3", "terms.attract is 3, from the command line; it must be a mapping of settings."),
    ],
)
def test_wrong_settings_of_a_packages_term_are_told_in_one_sentence(
    install: Install, override: str, sentence: str
) -> None:
    add(install)
    assert problem(override).startswith(sentence)


def test_a_term_that_no_package_adds_is_told_with_those_there_are() -> None:
    assert problem("terms.attract={}") == (
        "There is no setting terms.attract, which the command line states; the terms are ca, dm, cdm, isg, dp, and no "
        "installed package adds this one."
    )


def test_a_packages_term_is_written_and_read_again(install: Install) -> None:
    add(install)
    config = with_term()
    written = config.model_dump(mode="json")
    assert written["terms"]["attract"]["strength"] == 3.0
    assert validate(written) == config


def test_a_packages_term_is_shown_with_every_setting(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    add(install)
    assert execute(["recipe", "show", "digits", "terms.attract={}", "--resolved"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["terms"]["attract"]
    assert (shown["strength"], shown["query"], shown["weight"]) == (2.0, {"at": "anchor"}, 1.0)


def test_the_settings_of_a_packages_term_name_the_run(install: Install) -> None:
    add(install)
    plain, one, other = load_recipe("digits").config, with_term(), with_term("terms.attract.strength=4.0")
    assert len({config_hash(config) for config in (plain, one, other)}) == 3
    assert config_difference(one, other) == ["terms.attract.strength: 3.0 -> 4.0"]


def test_a_packages_term_that_is_off_is_as_if_it_were_not_there(install: Install) -> None:
    before = load_recipe("digits").config
    add(install)
    after = with_term("terms.attract=null")
    assert after == before
    assert config_hash(after) == config_hash(before)


def test_a_recipe_without_the_term_imports_nothing_of_the_package(install: Install) -> None:
    add(install)
    load_recipe("digits")
    assert "outside_term" not in sys.modules


def test_a_plan_counts_what_a_packages_term_asks(install: Install) -> None:
    add(install)
    # at the anchor there is a forward already; one call of the teacher and one of the fake score
    assert forward_units(with_term()) == forward_units(load_recipe("digits").config) + 2


@pytest.mark.parametrize(
    ("entry_point", "sentence"),
    [
        (
            "attract = outside_term_that_is_gone:Attraction",
            "terms: The loss term attract of the package outside-term cannot be imported (ModuleNotFoundError: No "
            "module named 'outside_term_that_is_gone'). Repair or uninstall that package (from the command line).",
        ),
        (
            "attract = outside_term:NOT_A_TERM",
            "terms: The package outside-term registers outside_term:NOT_A_TERM as the loss term attract, but that is "
            "not a Term that says its direction. Repair or uninstall that package (from the command line).",
        ),
        (
            "attract = outside_term:Nothing",
            "terms: The package outside-term registers outside_term:Nothing as the loss term attract, but that is "
            "not a Term that says its direction. Repair or uninstall that package (from the command line).",
        ),
    ],
)
def test_a_package_whose_term_cannot_be_used_is_told_where_it_is_asked_for(
    install: Install, entry_point: str, sentence: str
) -> None:
    add(install, entry_point)
    assert problem("terms.attract={}") == sentence
    assert load_recipe("digits").name == "digits"


@pytest.mark.parametrize("name", ["active", "_mine", "my-term", "model_config"])
def test_a_term_has_a_name_that_a_setting_can_have(install: Install, name: str) -> None:
    add(install, f"{name} = outside_term:Attraction")
    said = problem(f"terms.{name}={{}}")
    assert said.startswith(
        f"terms: The package outside-term registers a loss term as '{name}', which cannot be the name"
    )


@pytest.mark.parametrize(("name", "owners"), [("ca", "fewstep, outside-term"), ("attract", "outside-term, other-term")])
def test_a_name_of_two_owners_is_refused_where_it_is_asked_for(install: Install, name: str, owners: str) -> None:
    add(install, f"{name} = outside_term:Attraction")
    if name == "attract":
        add(install, f"{name} = other_term:Attraction", name="other-term")
    said = problem(f"terms.{name}={{}}")
    assert said.startswith(f"terms: The loss term {name} is of more than one installed package: ")
    assert all(owner in said for owner in owners.split(", "))
