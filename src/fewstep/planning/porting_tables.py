"""The porting matrix for a reader: as a list as wide as the terminal, as the tables of the documents, as plain data."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fewstep.config.recipe import load_recipe
from fewstep.config.recipe_files import package_recipes, recipe_names
from fewstep.errors import ConfigError, shown
from fewstep.planning.cost import EIGHT_H100, hours
from fewstep.planning.porting_matrix import MATRIX, PORTED, REFUSED, Target
from fewstep.plugins import BACKBONES, TERMS, WHAT, installed, package_of

_JSON_FIELDS = ("name", "pipeline", "parameters", "prediction", "status", "refused", "reason")
_HEADINGS = ("#", "target", "family", "parameters", "status", "difficulty", "key blocker", "cost", "notes")
_COST_NOTE = (
    f"Cost: the network calls of the recipe's whole budget on {EIGHT_H100.name}, counted, not measured: "
    f"peak {EIGHT_H100.teraflops['bf16']:.0f} TFLOP/s each in bf16 and {EIGHT_H100.teraflops['fp32']:.0f} in fp32, of "
    f"which {EIGHT_H100.utilisation:.0%} is assumed to be reached."
)
_LIST_HEADINGS = ("kind", "models", "status")
_MIN_WIDTH = 60
"""The longest name of a repository with its margin; a narrower terminal breaks it."""
_STATUS = {"tiny weights only": "runs", "refused": "refused"}
_NOTE = (
    "runs: shown on tiny random weights of the real classes; the released weights were never run here. refused: "
    "already distilled, or a medium that no backbone draws."
)
_MORE = "More: `fewstep backbones KIND` or MODEL, --details for all, --json, --markdown."


@dataclass(frozen=True)
class Port:
    """One line of the matrix.

    Attributes:
        place: In the recommended order of ports, from 1; None for what is refused.
        hours: Of the whole recipe; None where there is no recipe.
    """

    target: Target
    place: int | None
    hours: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of the headings."""
        target = self.target
        return (
            str(self.place or "-"),
            target.name,
            target.family,
            _billions(target.parameters),
            target.status,
            target.difficulty or "-",
            target.blocker or "-",
            "-" if self.hours is None else f"{self.hours:.1f} h",
            target.notes or target.reason,
        )


def ports() -> list[Port]:
    """What is ported, in the recommended order of ports."""
    return [Port(target, place, _hours(target)) for place, target in enumerate(PORTED, start=1)]


def _refusals() -> list[tuple[str, str, str, str]]:
    """Name, model, pipeline and reason of what is refused."""
    return [(target.name, target.model, target.pipeline, target.reason) for target in REFUSED]


def as_json() -> str:
    """Every target, refused ones included, with the fields ``name`` to ``reason``."""
    rows: list[dict[str, Any]] = [{name: getattr(target, name) for name in _JSON_FIELDS} for target in MATRIX]
    return json.dumps(rows, indent=2)


def as_markdown() -> str:
    """The matrix as it stands in docs/backbones/README.md."""
    lines = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS)), *(_line(port.cells) for port in ports())]
    refused = [_line(("refused", "model", "pipeline", "why")), _line(["---"] * 4), *map(_line, _refusals())]
    return "\n".join([*lines, "", _COST_NOTE, "", *refused]) + "\n"


def overview(width: int) -> Iterator[str]:
    """A short table: every kind, its models, whether it runs; then what installed packages add."""
    width = max(width, _MIN_WIDTH)
    rows = [(kind, ", ".join(row.name for row in targets), _STATUS[targets[0].status]) for kind, targets in _by_kind()]
    first, last = (max(len(row[column]) for row in (_LIST_HEADINGS, *rows)) for column in (0, 2))
    middle = width - first - last - 4
    for kind, models, status in (_LIST_HEADINGS, *rows):
        for line in textwrap.wrap(models, middle, break_on_hyphens=False):
            yield f"{kind:<{first}}  {line:<{middle}}  {status}".rstrip()
            kind = status = ""
    yield ""
    yield from _wrapped(_NOTE, width)
    yield from _wrapped(_MORE, width)
    added = _added()
    if added:
        yield from ("", "Added by installed packages:")
    for text in added:
        yield from _wrapped(text, width, indent="  ")


def _added(wanted: str | None = None) -> list[str]:
    """A line for everything that installed packages add, or for what they add under one name."""
    classes = [(WHAT[group], entry) for group in (BACKBONES, TERMS) for entry in installed(group)]
    named = [
        (entry.name, f"{what} {entry.name}: {entry.value} of {package_of(entry, version=True)}")
        for what, entry in classes
    ]
    recipes, broken = package_recipes()
    named += [(recipe.name, f"recipe {recipe.name} of {recipe.package}") for recipe in recipes]
    found = [text for name, text in named if wanted in (None, name)]
    return [*found, *broken] if wanted is None else found


def details(width: int, wanted: str | None = None) -> Iterator[str]:
    """Everything about one kind or model, or about all.

    Raises:
        ConfigError: There is no such kind or model; the nearest names are told.
    """
    width = max(width, _MIN_WIDTH)
    added = _added(wanted)
    for text in added:
        yield from _wrapped(text, width)
    if added and wanted is not None:
        return
    costs = {port.target: port for port in ports()}
    for target in MATRIX if wanted is None else _named(wanted):
        yield f"{target.name} (kind {target.family}, {_STATUS[target.status]})"
        for text in _facts(target, costs.get(target)):
            yield from _wrapped(text, width, indent="  ")
        yield ""
    yield from _wrapped(_COST_NOTE, width)


def _named(wanted: str) -> list[Target]:
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


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _hours(target: Target) -> float | None:
    if target.teraflop is None or target.name not in recipe_names():
        return None
    return hours(load_recipe(target.name).config, teraflop_per_forward=target.teraflop)


def _billions(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters / 1e9:.3f} B"


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
