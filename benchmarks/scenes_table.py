"""The tables of docs/scenes.md: what was measured of the teacher of scenes, and which gates that holds."""

import json
import math
from dataclasses import dataclass
from typing import Any

from benchmarks.pages import RESULTS, table

FIGURES = {"overall": 3, "fd": 2, "precision": 3, "recall": 3, "coverage": 3}
"""With their decimals."""


@dataclass(frozen=True)
class Gate:
    """What a task that is worth distilling has to hold."""

    name: str
    found: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return (self.at_least or -math.inf) <= self.found <= (self.at_most or math.inf)

    @property
    def asked(self) -> str:
        """The bound in words."""
        return f"at most {self.at_most:g}" if self.at_least is None else f"at least {self.at_least:g}"


def gates() -> list[Gate]:
    """Every gate, with what was measured."""
    searched = read_searched()
    many, right, near = (searched[name] for name in ("50 steps", "4 steps, most right", "4 steps, nearest"))
    return [
        Gate("judge on real pictures, least of the categories", min(searched["real"]["by_category"].values()), 0.98),
        Gate("teacher at 50 steps, overall", many["overall"], 0.85),
        Gate("at 4 steps, best of all searched, against 50: overall", right["overall"] / many["overall"], at_most=0.7),
        Gate("FD, nearest of all searched", near["fd"] / many["fd"], 2.0),
    ]


def gates_table() -> str:
    """The gates as a table."""
    lines = [("gate", "measured", "asked", "holds")]
    lines += [(gate.name, f"{gate.found:.3g}", gate.asked, "yes" if gate.holds else "**no**") for gate in gates()]
    return table(lines)


def searched_table() -> str:
    """Real pictures, the teacher at 50 steps, and of all searched at 4 the most right and the nearest."""
    searched = read_searched()
    categories = list(searched["real"]["by_category"])
    lines = [("", "guidance", "grid", *FIGURES, *(name.replace("_", " ") for name in categories))]
    for name, row in searched.items():
        guidance = "-" if row["guidance"] is None else f"{row['guidance']:g}"
        grid = "even" if name == "50 steps" else ", ".join(f"{sigma:.2g}" for sigma in row["sigmas"] or ()) or "-"
        figures = [f"{row[figure]:.{decimals}f}" for figure, decimals in FIGURES.items()]
        lines.append((name, guidance, grid, *figures, *(f"{row['by_category'][each]:.2f}" for each in categories)))
    return table(lines)


def tried_table() -> str:
    """What the recipe's settings were compared with, from docs/results/scenes-tried.json, which has their overrides."""
    lines = [("change", "updates", "overall", "wrong number of things", "FD", "recall")]
    for row in json.loads((RESULTS / "scenes-tried.json").read_text()):
        (updates,) = (said.partition("=")[2] for said in row["overrides"] if said.startswith("budget.student_updates="))
        figures = (f"{row['overall']:.3f}", f"{row['wrong_number']:.3f}", f"{row['fd']:.1f}", f"{row['recall']:.2f}")
        lines.append((row["change"], updates, *figures))
    return table(lines)


def read_searched() -> dict[str, Any]:
    """The rows of docs/results/scenes-teacher.json by name."""
    rows: dict[str, Any] = json.loads((RESULTS / "scenes-teacher.json").read_text())
    return rows
