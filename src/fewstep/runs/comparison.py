"""Runs side by side: settings that differ, figures at the end and at their best, losses over updates."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.config.identity import differing_settings
from fewstep.runs.folder import RunFolder
from fewstep.runs.metrics import Line, all_lines, curves
from fewstep.runs.summary import EVALUATION
from fewstep.scores.registry import metric_class, metric_names

_LOSS = "loss/"
WINDOW = 20
"""Lines over which a loss is averaged: single steps differ by their length."""

Curve = list[tuple[float, float]]
"""A figure as (student updates, value), in their order."""


@dataclass(frozen=True)
class Figure:
    """One figure of one run, a loss as its running mean.

    Attributes:
        last: At the end.
        best: The lowest of a loss, of a measurement the one its metric calls better; None where no metric has its name.
        update: Student updates at ``best``.
    """

    last: float
    best: float | None
    update: float | None


@dataclass(frozen=True)
class RunComparison:
    """Several runs; every list is in their order.

    Attributes:
        names: What to call them.
        settings: Those that differ, by path.
        figures: Losses and measurements by name; None for a run that has no such figure.
        curves: Running means of the losses, and measurements, by name; empty for a run that has no such figure.
    """

    names: list[str]
    settings: dict[str, list[Any]]
    figures: dict[str, list[Figure | None]]
    curves: dict[str, list[Curve]]

    def plain(self) -> dict[str, Any]:
        """For JSON; without the curves, which are what metrics.jsonl has."""
        figures = {name: [one and vars(one) for one in found] for name, found in self.figures.items()}
        return {"runs": self.names, "settings": self.settings, "figures": figures}


def compare_runs(paths: Sequence[Path]) -> RunComparison:
    """Read runs, and put them side by side; one by itself has its figures and curves.

    Raises:
        ConfigError: No run is in a folder.
        CheckpointError: A file of one is damaged.
    """
    folders = [RunFolder.open(path) for path in paths]
    each = [_curves(all_lines(folder.metrics), folder.config.student.every) for folder in folders]
    names = list(dict.fromkeys(name for found in each for name in found))
    return RunComparison(
        _labels(paths),
        differing_settings([folder.config for folder in folders]),
        {name: [_figure(name, found[name]) if name in found else None for found in each] for name in names},
        {name: [found.get(name, []) for found in each] for name in names},
    )


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above them as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    depths = range(1, max(map(len, parts)) + 1)
    named = (["/".join(one[-depth:]) for one in parts] for depth in depths)
    return next((names for names in named if len(set(names)) == len(names)), [str(path) for path in paths])


def _curves(lines: Iterable[Line], every: int) -> dict[str, Curve]:
    """Losses, smooth, and measurements; what is no number is left out."""
    found: dict[str, Curve] = {}
    for name, steps in curves(lines).items():
        if name.startswith((_LOSS, EVALUATION)):
            curve = [((step + 1) / every, value) for step, value in steps]
            found[name] = _smooth(curve) if name.startswith(_LOSS) else curve
    return found


def _smooth(curve: Curve) -> Curve:
    """Mean of each value and those before it, at most WINDOW; the first ones, of fewer, count once there are more."""
    window = min(WINDOW, len(curve))
    parts = (curve[end - window : end] for end in range(window, len(curve) + 1))
    return [(part[-1][0], sum(value for _, value in part) / window) for part in parts]


def _figure(name: str, curve: Curve) -> Figure:
    higher = False if name.startswith(_LOSS) else _higher_is_better(name.removeprefix(EVALUATION))
    if higher is None:
        return Figure(curve[-1][1], None, None)
    update, best = (max if higher else min)(curve, key=lambda point: point[1])
    return Figure(curve[-1][1], best, update)


def _higher_is_better(figure: str) -> bool | None:
    return metric_class(figure).card.higher_is_better if figure in metric_names() else None
