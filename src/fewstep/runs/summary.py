"""Everything that one run's folder says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.config.identity import differing_settings, shown_setting
from fewstep.config.recipe import load_recipe
from fewstep.config.recipe_files import recipe_names
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.runs.folder import RunFolder
from fewstep.runs.metrics import Line, all_lines, last_figures
from fewstep.runs.overview import RunRow, read_row
from fewstep.runs.places import BEST, LATEST, checkpoints, completed_steps, pointed_to, sheets_in

EVALUATION = "evaluation/"
"""What the names of measured figures begin with in metrics.jsonl."""


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        row: Its progress, as a list of runs has it.
        config_hash: Of its settings.
        sessions: Its starts, as run.json has them.
        changes: What differs from the recipe of its recipe's name, such as ``student.lr: 0.0001 -> 2e-05``.
        not_compared: Why that is not known; None where it is.
        figures: The last value of each, measurements aside.
        evaluation: The last measurement, by figure.
        best_evaluation: The one that the best checkpoint was kept for.
        checkpoints: Names, the oldest first.
        latest, best: Those that are called so.
        sheets: Names, in the order of updates.
    """

    row: RunRow
    config_hash: str
    sessions: list[dict[str, Any]]
    changes: list[str]
    not_compared: str | None
    figures: dict[str, float]
    evaluation: dict[str, float]
    best_evaluation: dict[str, float]
    checkpoints: list[str]
    latest: str | None
    best: str | None
    sheets: list[str]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "row": self.row.plain()}


def summary_of(path: Path) -> RunSummary:
    """Read a run's folder.

    Raises:
        ConfigError: There is no run in it.
        CheckpointError: One of its files is damaged.
    """
    folder = RunFolder.open(path)
    facts, lines = folder.facts, list(all_lines(folder.metrics))
    figures = last_figures(lines)
    latest, best = (pointed_to(folder.checkpoints / name) for name in (LATEST, BEST))
    changes, not_compared = _changes(str(facts["recipe"]), folder.config)
    return RunSummary(
        row=read_row(path),
        config_hash=facts["config_hash"],
        sessions=facts["sessions"],
        changes=changes,
        not_compared=not_compared,
        figures={name: value for name, value in figures.items() if not name.startswith(EVALUATION)},
        evaluation=_measured(figures),
        best_evaluation={} if best is None else _measured(last_figures(_of_step(lines, completed_steps(best) - 1))),
        checkpoints=[checkpoint.name for checkpoint in checkpoints(folder.checkpoints)],
        latest=None if latest is None else latest.name,
        best=None if best is None else best.name,
        sheets=[sheet.name for sheet in sheets_in(folder.sheets)],
    )


def _changes(recipe: str, config: RunConfig) -> tuple[list[str], str | None]:
    """What the run's settings say other than the recipe does today, or why nobody knows."""
    if recipe not in recipe_names():
        return [], f"its recipe, {recipe}, is a file, or of a package that is not installed"
    try:
        stated = load_recipe(recipe).config
    except ConfigError as error:
        return [], str(error)
    found = differing_settings([stated, config])
    return [f"{path}: {shown_setting(old)} -> {shown_setting(new)}" for path, (old, new) in found.items()], None


def _of_step(lines: Sequence[Line], step: int) -> list[Line]:
    return [line for line in lines if line.step == step]


def _measured(figures: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix(EVALUATION): value for name, value in figures.items() if name.startswith(EVALUATION)}
