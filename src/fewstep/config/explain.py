"""Says in plain sentences what is wrong with stated settings: the value, where it came from, what to do."""

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fewstep.backbones.protocol import BackboneConfig
from fewstep.config.installed_terms import term_names, terms_class
from fewstep.config.layers import Layer
from fewstep.config.moved import names_now
from fewstep.config.run_config import RunConfig, backbone_config_class
from fewstep.config.schema import fields_of, leaf_paths, real_path
from fewstep.errors import MAX_LINES, ConfigError, shown
from fewstep.methods.terms import Terms

_Path = tuple[str | int, ...]

_MOST_LISTED = MAX_LINES - 2
"""Problems in one message, whose first line says what they are and whose last says how many more there are."""
_MORE = "... and"

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "too_long": "a list of at most {max_length}",
    "string_too_long": "a text of at most {max_length} characters",
    "predicate_failed": "one line of text without control characters",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_NOT_A_MAPPING = ("model_type", "model_attributes_type", "dataclass_type", "dataclass_exact_type", "dict_type")


def explain(error: ValidationError, settings: Mapping[str, Any], layers: Sequence[Layer]) -> list[str]:
    """One sentence for each problem that validation found, without repetition; as many as are listed, then how many."""
    found = error.errors(include_url=False)
    return _first((_sentence(details, settings, layers) for details in found), of=len(found))


def unusable(settings: Mapping[str, Any], layers: Sequence[Layer]) -> list[str]:
    """One sentence for each value that no setting can have whatever its name: no finite number, no text of Unicode."""
    problems = []
    for path, value in _scalars(settings):
        if isinstance(value, float) and not math.isfinite(value):
            problems.append((path, f"is {value}", "it must be a finite number"))
        elif isinstance(value, str) and not _is_unicode(value):
            problems.append((path, f"is {shown(value)}", "it holds halves of characters, which no file can hold"))
        elif not all(map(_is_unicode, path)):
            problems.append((path, "is stated", "its name holds halves of characters"))
    sentences = (f"{_dotted(path)} {said}, from {_source(path, layers)}; {demand}." for path, said, demand in problems)
    return _first(sentences, of=len(problems))


def listed(problems: Sequence[str]) -> str:
    """One message for all that was found."""
    if len(problems) == 1:
        return problems[0]
    *_, last = problems
    count = f"{len(problems)} problems" if not last.startswith(_MORE) else "more problems than are listed"
    return f"The settings have {count}:\n" + "\n".join(f"  {problem}" for problem in problems)


def _first(sentences: Iterator[str], *, of: int) -> list[str]:
    """The first sentences, as many as a message has lines for; the others are not even made, which may take long."""
    told = list(dict.fromkeys(itertools.islice(sentences, _MOST_LISTED)))
    return told if of <= _MOST_LISTED else [*told, f"{_MORE} {of - _MOST_LISTED} more."]


def _sentence(details: ErrorDetails, settings: Mapping[str, Any], layers: Sequence[Layer]) -> str:
    path, owner = real_path(RunConfig, details["loc"], settings, refine=_as_stated)
    kind, context = details["type"], details.get("ctx", {})
    source = _source(path, layers)
    if kind in _UNKNOWN_KEY:
        now = names_now(_dotted(path))
        cure = f"it is {' and '.join(now)} now." if now else _nearest(path, owner)
        return f"There is no setting {_dotted(path)}, which {source} states; {cure}"
    if kind in ("missing", "missing_argument"):
        return f"{_dotted(path)} is not stated and has no default; add it to the recipe or to the command line."
    if kind == "value_error":
        return _broken_rule(path, str(context["error"]), source)
    value = shown(details["input"])
    if kind == "union_tag_not_found":
        return f"{_dotted(path)} is {value}, from {source}, and does not say its {context['discriminator']}."
    if kind == "union_tag_invalid":
        tag, choices = context["tag"], context["expected_tags"]
        key = context["discriminator"].strip("'")
        return f"{_dotted((*path, key))} is {shown(tag)}, from {source}; it must be one of {choices}."
    if kind in _NOT_A_MAPPING:
        return f"{_dotted(path)} is {value}, from {source}; it must be a mapping of settings."
    expected = _EXPECTED[kind].format_map(_whole(context)) if kind in _EXPECTED else None
    demand = f"it must be {expected}." if expected else f"{details['msg'][:1].lower()}{details['msg'][1:]}."
    return f"{_dotted(path)} is {value}, from {source}; {demand}"


def _whole(context: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds such as 1000.0 as they are written: 1000."""
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in context.items()}


def _broken_rule(path: _Path, rule: str, source: str) -> str:
    place, rule = _dotted(path), shown(rule, 500, quoted=False)
    said = rule if rule.startswith(place) else f"{place}: {rule}"
    return f"{said.removesuffix('.')} (from {source})."


def _nearest(path: _Path, owner: type | None) -> str:
    """The settings a wrong key may have meant: its neighbours by spelling, then the same name elsewhere."""
    key, dotted_path = str(path[-1]), _dotted(path)
    if "." in key:
        return "a name has no dot; write each one below the other."
    known = list(dict.fromkeys(leaf_paths(RunConfig)))
    of_terms = owner is not None and issubclass(owner, Terms)
    names = term_names() if of_terms else fields_of(owner) if owner else ()
    here = {_dotted((*path[:-1], name)): name for name in names}
    if dotted_path in known:
        return f"it belongs to another kind of {path[-2]}, and the settings of this one are {', '.join(here.values())}."
    close = difflib.get_close_matches(key, here.values(), n=3, cutoff=0.6)
    near = [dotted for dotted, name in here.items() if name in close]
    elsewhere = [leaf for leaf in known if leaf.rpartition(".")[2] == key]
    meant = list(dict.fromkeys([*near, *elsewhere[:3]]))
    if meant:
        return f"did you mean {' or '.join(meant)}?"
    if of_terms:
        return f"the terms are {', '.join(here.values())}, and no installed package adds this one."
    return f"the settings there are {', '.join(here.values())}." if here else "that place has no settings."


def _as_stated(section: type, settings: Any) -> type:
    """The class of a section in which packages have a say, as far as they can be asked."""
    stated = settings if isinstance(settings, Mapping) else {}
    try:
        if section is BackboneConfig:
            return backbone_config_class(stated.get("kind"))
        return terms_class(stated) if section is Terms else section
    except (ConfigError, ValueError):
        return section


def _source(path: _Path, layers: Sequence[Layer]) -> str:
    """The last layer that says something at ``path`` or, for a rule over several values, at the nearest place above."""
    for length in range(len(path), 0, -1):
        for layer in reversed(layers):
            if layer.states(path[:length]):
                return layer.source
    return layers[-1].source


def _scalars(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    items: Sequence[tuple[str | int, Any]]
    if isinstance(value, Mapping) and value:
        items = list(value.items())
    elif isinstance(value, list) and value:
        items = list(enumerate(value))
    else:
        yield path, value
        return
    for key, child in items:
        yield from _scalars(child, (*path, key))


def _dotted(path: _Path) -> str:
    """A path as it is written, each name of it cut and without control characters."""
    return shown(".".join(_name(key) for key in path), 200, quoted=False)


def _name(key: str | int) -> str:
    return shown(key, 60, quoted=False) if key != "" else "''"


def _is_unicode(key: str | int) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in str(key))
