"""Reading YAML as a person means it: 1e-4 is a number, yes is a word, and a key is written once."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from fewstep.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Plain data only, with the scalars of YAML 1.2 instead of PyYAML's 1.1.

    In 1.1 ``1e-4`` is a string, ``1:30`` is ninety, ``on`` and ``no`` are booleans and dates are objects.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_SCALARS = {
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse one YAML document of plain data.

    Args:
        text: The document.
        source: Where it came from, for the message.

    Raises:
        ConfigError: It is no valid YAML, or a key is written twice.
    """
    try:
        # a subclass of SafeLoader: plain data only
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_reason(error)}.") from error


def parse_yaml_mapping(text: str, *, source: str) -> dict[str, Any]:
    """Parse a document whose top level is a mapping of names.

    Raises:
        ConfigError: It is something else.
    """
    value = parse_yaml(text, source=source)
    if value is None:
        raise ConfigError(f"{source} is empty; a recipe states at least a base, or a backbone, prompts and terms.")
    if not isinstance(value, dict):
        raise ConfigError(f"{source} holds {type(value).__name__} {value!r}; a recipe is a mapping of names to values.")
    _require_names(value, "", source)
    return value


def _require_names(value: dict[Any, Any], prefix: str, source: str) -> None:
    for key, child in value.items():
        if not isinstance(key, str):
            raise ConfigError(f"{source} has the key {prefix}{key!r}; keys are names.")
        if isinstance(child, dict):
            _require_names(child, f"{prefix}{key}.", source)


def _reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
