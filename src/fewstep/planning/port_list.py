"""What can be a teacher, for a terminal of any width: one line per kind, or everything about a kind or a model."""

import textwrap
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from fewstep.backbones.matrix import MATRIX, Target
from fewstep.errors import ConfigError, shown
from fewstep.planning.ports import COST_NOTE, Port, ports

HEADINGS = ("kind", "models", "status")
_MIN_WIDTH = 60
"""The longest name of a repository with its margin; a narrower terminal breaks it."""
_STATUS = {"tiny weights only": "runs", "not ported": "not yet", "refused": "refused"}
_NOTE = (
    "runs: shown on tiny random weights of the real classes; the released weights were never run here. refused: "
    "already distilled, or no still pictures."
)
_MORE = "More: `fewstep backbones KIND` or MODEL, --details for all, --json, --markdown."


def overview(width: int) -> Iterator[str]:
    """A short table: every kind, its models, whether it runs."""
    width = max(width, _MIN_WIDTH)
    rows = [(kind, ", ".join(row.name for row in targets), _STATUS[targets[0].status]) for kind, targets in _by_kind()]
    first, last = (max(len(row[column]) for row in (HEADINGS, *rows)) for column in (0, 2))
    middle = width - first - last - 4
    for kind, models, status in (HEADINGS, *rows):
        for line in textwrap.wrap(models, middle, break_on_hyphens=False):
            yield f"{kind:<{first}}  {line:<{middle}}  {status}".rstrip()
            kind = status = ""
    yield ""
    yield from _wrapped(_NOTE, width)
    yield from _wrapped(_MORE, width)


def details(width: int, wanted: str | None = None) -> Iterator[str]:
    """Everything about one kind or model, or about all.

    Raises:
        ConfigError: There is no such kind or model; the nearest names are told.
    """
    width = max(width, _MIN_WIDTH)
    costs = {port.target: port for port in ports()}
    for target in MATRIX if wanted is None else named(wanted):
        yield f"{target.name} (kind {target.family}, {_STATUS[target.status]})"
        for text in _facts(target, costs.get(target)):
            yield from _wrapped(text, width, indent="  ")
        yield ""
    yield from _wrapped(COST_NOTE, width)


def named(wanted: str) -> list[Target]:
    """The targets of one kind, or of one name or repository id.

    Raises:
        ConfigError: There is none; the nearest names are told.
    """
    found = [target for target in MATRIX if wanted in (target.family, target.name, target.model)]
    if found:
        return found
    names = list(dict.fromkeys(name for target in MATRIX for name in (target.family, target.name, target.model)))
    near = get_close_matches(wanted[:200], names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(
        f"{shown(wanted)} is no kind and no model that this list knows.{hint} `fewstep backbones` prints them all; "
        f"`fewstep check MODEL` looks at any checkpoint."
    )


def _by_kind() -> list[tuple[str, list[Target]]]:
    """Kinds in the recommended order of their first model; a kind of which only some run has a line for each status."""
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in MATRIX:
        groups.setdefault((target.family, target.status), []).append(target)
    return [(kind, targets) for (kind, _), targets in groups.items()]


def _facts(target: Target, port: Port | None) -> Iterator[str]:
    size = "" if target.parameters is None else f"{target.parameters / 1e9:.3f} B parameters, "
    yield target.model
    yield f"{target.pipeline}, {size}prediction: {target.prediction}"
    if target.difficulty:
        yield f"port: {target.difficulty}; {target.blocker}"
    if port is not None and port.hours is not None:
        yield f"cost: {port.hours:.1f} h"
    yield from (text for text in (target.notes, target.reason) if text)


def _wrapped(text: str, width: int, *, indent: str = "") -> Sequence[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
