"""YAML read as a person means it."""

from typing import Any

import pytest

from fewstep.config.yaml_text import parse_yaml
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


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 8)}]\n" for i in range(9)
)
TOWER = "k0: &k0 x\n" + "".join(f"k{i}: &k{i} {'[' * 9}*k{i - 1}{']' * 9}\n" for i in range(1, 9))
HOSTILE = {
    "tag of a program": (
        "lr: !!python/object/apply:os.system ['true']",
        "lr has the tag !!python/object/apply:os.system;",
    ),
    "tag of plain data": ("lr: !!float 3", "lr has the tag !!float; write plain values without tags."),
    "tag of somebody": ("lr: !mine 3", "lr has the tag !mine;"),
    "number as a key": ("student: {3: x}", "line 1, column 11: student has the key 3; keys are names."),
    "truth as a key": ("true: x", "the whole has the key true; keys are names."),
    "list as a key": ("? [a]\n: b", "the whole has a list or a mapping as a key; keys are names."),
    "keys within keys": ("? " * 5000, "the whole has a list or a mapping as a key; keys are names."),
    "aliases of aliases": (BOMB.replace("*k-1", "*a"), "values that settings have at most, with aliases."),
    "aliases on top of each other": (TOWER, "is nested deeper than the 40 levels that settings have at most."),
    "list in itself": ("a: &a [*a]", "a.0 contains itself through the alias *a."),
    "mapping in itself": ("a: &a {b: {c: *a}}", "contains itself through the alias *a."),
    "deep list": ("[" * 5000, "is nested deeper than the 40 levels"),
    "deep mapping": ("{a: " * 5000, "is nested deeper than the 40 levels"),
    "deep blocks": ("- " * 5000, "is nested deeper than the 40 levels"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(6000)), "is beyond the 10000 values"),
    "long text": ("a: " + "x" * 10**7, "a test has 10000003 characters; settings have 262144 at most."),
    "number of many digits": ("batch: -" + "9" * 5000, "batch is a number of 5001 digits; a setting has 40 at most."),
    "zero byte": ("a: \0", r"character 4 is '\x00', which YAML does not allow."),
    "half a character": ("a: \udcff", r"character 4 is '\udcff', which YAML does not allow."),
    "no character": (r'a: "\UFFFFFFFF"', "a test is not valid YAML: "),
    "version of many digits": ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "a test is not valid YAML: "),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE)
def test_text_that_no_settings_consist_of_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, source="a test")
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 400


def test_an_alias_stands_for_its_value() -> None:
    text = "law: &law {low: 0.1, high: 0.9}\ndm: {probe: *law}\ncdm: {probe: *law}"
    assert parse_yaml(text, source="a test")["cdm"] == {"probe": {"low": 0.1, "high": 0.9}}
