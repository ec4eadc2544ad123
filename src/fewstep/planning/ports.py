"""The porting matrix with what each target costs, as a table of text and as plain data."""

import json
from dataclasses import dataclass
from typing import Any

from fewstep.backbones.matrix import MATRIX, NOT_PORTED, PORTED, REFUSED, Target
from fewstep.config.recipe import load_recipe
from fewstep.config.recipe_files import recipe_names
from fewstep.planning.cost import EIGHT_H100, hours

_JSON_FIELDS = ("name", "pipeline", "parameters", "prediction", "status", "refused", "reason")
HEADINGS = ("#", "target", "family", "parameters", "status", "difficulty", "key blocker", "cost", "notes")
COST_NOTE = (
    f"Cost: the network calls of the recipe's whole budget on {EIGHT_H100.name}, counted, not measured: "
    f"peak {EIGHT_H100.teraflops['bf16']:.0f} TFLOP/s each in bf16 and {EIGHT_H100.teraflops['fp32']:.0f} in fp32, of "
    f"which {EIGHT_H100.utilisation:.0%} is assumed to be reached."
)


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
        """The line as text, in the order of ``HEADINGS``."""
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
    """What is ported or could be, in the recommended order of ports."""
    return [Port(target, place, _hours(target)) for place, target in enumerate(PORTED + NOT_PORTED, start=1)]


def refusals() -> list[tuple[str, str, str, str]]:
    """Name, model, pipeline and reason of what is refused."""
    return [(target.name, target.model, target.pipeline, target.reason) for target in REFUSED]


def as_json() -> str:
    """Every target, refused ones included, with the fields ``_JSON_FIELDS``."""
    rows: list[dict[str, Any]] = [{name: getattr(target, name) for name in _JSON_FIELDS} for target in MATRIX]
    return json.dumps(rows, indent=2)


def as_markdown() -> str:
    """The matrix as it stands in docs/backbones/README.md."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(port.cells) for port in ports())]
    refused = [_line(("refused", "model", "pipeline", "why")), _line(["---"] * 4), *map(_line, refusals())]
    return "\n".join([*lines, "", COST_NOTE, "", *refused]) + "\n"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _hours(target: Target) -> float | None:
    if target.teraflop is None or target.name not in recipe_names():
        return None
    return hours(load_recipe(target.name).config, teraflop_per_forward=target.teraflop)


def _billions(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters / 1e9:.3f} B"
