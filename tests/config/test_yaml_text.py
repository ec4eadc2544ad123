"""YAML read as a person means it."""

from typing import Any

import pytest

from fewstep.config.yaml_text import parse_yaml, parse_yaml_mapping
from fewstep.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("3", 3),
        ("-3", -3),
        ("0", 0),
        ("010", "010"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-01-02", "2026-01-02"),
        ("'1'", "1"),
        ("[1, 0.5]", [1, 0.5]),
        ("a red three", "a red three"),
    ],
)
def test_a_scalar_means_what_it_looks_like(text: str, value: Any) -> None:
    parsed = parse_yaml(text, source="a test")
    assert parsed == value
    assert type(parsed) is type(value)


def test_an_object_tag_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^a test is not valid YAML: line 1, column 1: could not determine"):
        parse_yaml("!!python/object/apply:os.system ['true']", source="a test")


def test_a_key_that_is_no_name_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^a test has the key student.3; keys are names.$"):
        parse_yaml_mapping("student: {3: x}", source="a test")
