"""Every setting has bounds: what is far outside of them is refused by name, whatever kind of settings it belongs to."""

from typing import Annotated, Any

import pytest
from annotated_types import Interval

from fewstep.bounds import require_within
from fewstep.config import RunConfig, load_recipe
from fewstep.config.layers import override_layer, recipe_layers
from fewstep.config.recipe import build_config
from fewstep.errors import MAX_LINES, ConfigError
from tests.hostile.settings import settings_of

# read once: parsing it costs more than all of a case
DIGITS = recipe_layers("digits")
SETTINGS = list(settings_of(RunConfig))
OUTSIDE: dict[type, tuple[str, ...]] = {
    int: (str(10**30), str(-(10**30))),
    float: ("1e300", "-1e300"),
    str: ("x" * 5000, r'"a\eb"'),
}


def test_the_settings_of_every_kind_are_tried() -> None:
    tried = {path for _, path, _, _ in SETTINGS}
    assert len(SETTINGS) > 100
    assert {"batch", "schedule.inner.low", "terms.isg.margin", "backbone.ca.high", "evaluation.num_seeds"} <= tried


@pytest.mark.parametrize(
    ("chosen", "path", "kind", "is_list"), SETTINGS, ids=[" ".join([*c, p, k.__name__]) for c, p, k, _ in SETTINGS]
)
def test_a_setting_far_outside_is_refused_by_its_name(
    chosen: tuple[str, ...], path: str, kind: type, is_list: bool
) -> None:
    for value in OUTSIDE[kind]:
        with pytest.raises(ConfigError) as caught:
            build_config([*DIGITS, override_layer([*chosen, f"{path}=[{value}]" if is_list else f"{path}={value}"])])
        assert path.rpartition(".")[0] in str(caught.value)
        assert path.rpartition(".")[2] in str(caught.value)
        assert len(str(caught.value)) < 600


LISTS = [(path, kind) for _, path, kind, is_list in SETTINGS if is_list and kind is not int and path != "student.betas"]


@pytest.mark.parametrize(("path", "kind"), LISTS)
def test_a_list_of_thousands_of_values_is_refused(path: str, kind: type) -> None:
    with pytest.raises(ConfigError):
        load_recipe("digits", [f"{path}=[{', '.join(['a' if kind is str else '0.5'] * 5000)}]"])


@pytest.mark.parametrize(
    ("key", "value"), [("path", "x" * 5000), ("file", "x" * 5000), ("scale", "1e300"), ("scal", "1")]
)
def test_a_setting_of_an_item_of_a_list_is_refused_by_its_name(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"backbone\.lora\.0\.{key}\b"):
        load_recipe(
            "digits",
            [f"backbone.lora=[{{path: x, {key}: {value}}}]" if key != "path" else f"backbone.lora=[{{path: {value}}}]"],
        )


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^student.lr is inf, from the command line; it must be a finite number.$"):
        load_recipe("digits", ["student.lr=1e999"])


def test_half_a_character_is_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"^backbone.model is .*; it holds halves of characters"):
        load_recipe("digits", [r'backbone.model="a\ud800"'])


@pytest.mark.parametrize("key", ["\udcff", "\x1b[31m", "x" * 10_000, "\u202e", "a\nb"])
def test_a_name_that_cannot_be_printed_is_told_all_the_same(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("digits", [f"student.{key}=1"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert "student." in str(caught.value)


def test_many_problems_are_counted_and_the_first_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("digits", ["student={" + ", ".join(f"k{i}: 1" for i in range(4000)) + "}"])
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-1] == "  ... and 3982 more."


def test_a_name_with_a_dot_in_it_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^There is no setting evaluation.student.lr, .*; a name has no dot; write each one"
    ):
        load_recipe("digits", ["evaluation={student.lr: 1, every: 1, metrics: [mse]}"])


def test_an_override_of_many_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="names 3000 keys, one below the other; no setting lies deeper than 20"):
        load_recipe("digits", [".".join(["a"] * 3000) + "=1"])


@pytest.mark.parametrize("value", [True, "4", None, 0, 11, -(10**40), 10**400, float("nan"), float("inf")])
def test_an_argument_outside_its_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^steps is .*; it must be a number from 1 to 10.$"):
        require_within(value, "steps", Annotated[float, Interval(ge=1, le=10)])
