"""Reading YAML as a person means it: 1e-4 is a number, yes is a word, and a key is written once.

The text may come from anybody. It is bounded before anything is built from it: in length, in values, in depth (what an
alias stands for is counted each time), in digits; tags are not read.
"""

import re
from typing import Any

import yaml

from fewstep.errors import ConfigError, shown

MAX_CHARACTERS = 2**18
_MAX_VALUES = 10_000
_MAX_DEPTH = 40
_MAX_DIGITS = 40
"""A recipe with every setting has 3,000 characters, 150 values, 5 levels; a number of a setting has up to 20 digits."""


_STANDARD = "tag:yaml.org,2002:"


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that no settings consist of."""


class _Loader(yaml.SafeLoader):
    """Plain data only, with the scalars of YAML 1.2 instead of PyYAML's 1.1.

    In 1.1 ``1e-4`` is a string, ``1:30`` is ninety, ``on`` and ``no`` are booleans and dates are objects.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._path: list[str] = []
        self._values = 0
        self._deepest = 0
        self._extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node with all that is below it; where a bound is passed, stop."""
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        is_alias = self.check_event(yaml.AliasEvent)
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # of PyYAML's stubs
        if index is not None:
            self._path.append(index.value if isinstance(index, yaml.ScalarNode) else str(index))
        if getattr(event, "tag", None) is not None:
            tag = shown(event.tag.replace(_STANDARD, "!!"), quoted=False)
            raise self._refused(event, f"has the tag {tag}; write plain values without tags")
        if is_key and not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            raise self._refused(event, "has a list or a mapping as a key; keys are names")
        before, deepest_before = self._values, self._deepest
        self._values += 1
        self._deepest = len(self._path)
        self._require_bounds(event)
        node = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._extents:
                raise self._refused(event, f"contains itself through the alias *{shown(event.anchor, quoted=False)}")
            values, height = self._extents[id(node)]
            self._values, self._deepest = before + values, len(self._path) + height
            self._require_bounds(event)
        else:
            self._extents[id(node)] = self._values - before, self._deepest - len(self._path)
        self._deepest = max(self._deepest, deepest_before)
        if is_key and not (isinstance(node, yaml.ScalarNode) and node.tag == _STANDARD + "str"):
            raise self._refused(
                event, f"has the key {shown(getattr(node, 'value', node), quoted=False)}; keys are names"
            )
        if isinstance(node, yaml.ScalarNode) and node.tag == _STANDARD + "int" and len(node.value) > _MAX_DIGITS:
            raise self._refused(event, f"is a number of {len(node.value)} digits; a setting has {_MAX_DIGITS} at most")
        if index is not None:
            self._path.pop()
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def _require_bounds(self, event: Any) -> None:
        if self._values > _MAX_VALUES:
            raise self._refused(event, f"is beyond the {_MAX_VALUES} values that settings have at most, with aliases")
        if self._deepest > _MAX_DEPTH:
            raise self._refused(event, f"is nested deeper than the {_MAX_DEPTH} levels that settings have at most")

    def _refused(self, event: Any, problem: str) -> _RefusedError:
        place = shown(".".join(self._path), quoted=False) if self._path else "the whole"
        return _RefusedError(None, None, f"{place} {problem}", event.start_mark)


_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_STANDARD + _tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse one YAML document of plain data whose keys are names.

    Args:
        text: The document.
        source: Where it came from, for the message.

    Raises:
        ConfigError: It is no valid YAML, a key is written twice or is no text, or it is beyond a bound.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{source} has {len(text)} characters; settings have {MAX_CHARACTERS} at most.")
    try:
        # a subclass of SafeLoader: plain data only
        return yaml.load(text, Loader=_Loader)
    except _RefusedError as error:
        raise ConfigError(f"{source} cannot be used: {_reason(error)}.") from error
    # PyYAML lets Python's own errors through: of an escape such as "\UFFFFFFFF", of the version in %YAML
    except (yaml.YAMLError, ValueError, OverflowError) as error:
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
        raise ConfigError(
            f"{source} holds {type(value).__name__} {shown(value)}; a recipe is a mapping of names to values."
        )
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} is {shown(chr(error.character))}, which YAML does not allow"
    mark = getattr(error, "problem_mark", None)
    problem = shown(getattr(error, "problem", None) or str(error), 300, quoted=False)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
