"""One run: train or go on with its training, export, measure, write the outcome, remove everything else."""

import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import fewstep
from benchmarks.evidence.outcome import Outcome
from benchmarks.evidence.study import Run
from benchmarks.evidence.task import Task
from fewstep.config.recipe import load_recipe
from fewstep.errors import NonFiniteError
from fewstep.export.export import export
from fewstep.files import UnreadableError, parse_json
from fewstep.runs.places import checkpoints, completed_steps
from fewstep.training.run import train

QUICK = ("report.sheet_every=null", "report.trackers=[]", "checkpoint.keep_last=1", "parallel.device=cpu")


@dataclass(frozen=True)
class Place:
    """Where things are.

    Attributes:
        runs: Folder of the run that is being made; its training's folder has the key's name and goes when it is done.
        results: Folder of the outcomes.
        students: Folder in which exported students are kept, or None.
        threads: Threads of the arithmetic.
    """

    runs: Path
    results: Path
    students: Path | None = None
    threads: int = 1

    def folder(self, run: Run) -> Path:
        return self.runs / run.key


def make(run: Run, task: Task, place: Place) -> Outcome | None:
    """Make one run, or go on with it where it was stopped; None when its training was asked to stop and saved."""
    torch.set_num_threads(place.threads)
    folder = place.folder(run)
    diverged: str | None = None
    try:
        if not _train(run, task, place):
            return None
    except NonFiniteError as error:
        diverged = str(error)
    started = time.perf_counter()
    measured = {} if diverged is not None else _measure(run, task, place)
    outcome = Outcome(
        key=run.key,
        settings=run.settings,
        updates=run.updates,
        units=run.units,
        fewstep=fewstep.__version__,
        train_seconds=round(_logged_seconds(folder / "metrics.jsonl"), 1),
        measure_seconds=round(time.perf_counter() - started, 1),
        peak_mib=round(_peak_mib(), 1),
        diverged=diverged,
        measured=measured,
    )
    outcome.write(place.results)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _train(run: Run, task: Task, place: Place) -> bool:
    """Whether the training is at its end."""
    quick = [*QUICK, f"parallel.threads={place.threads}"]
    recipe = load_recipe(task.recipe, [*run.settings, *quick])
    trained = train(recipe, output=place.folder(run), resume=True, console=Console(quiet=True))
    steps = recipe.config.budget.student_updates * recipe.config.student.every
    return completed_steps(checkpoints(trained.checkpoints)[-1]) == steps


def _measure(run: Run, task: Task, place: Place) -> dict[int, dict[str, tuple[float, ...]]]:
    folder = place.folder(run)
    student = folder / "student"
    if not student.exists():
        export(folder, student, dtype="fp32")
    measured = {}
    for steps in run.steps:
        # a folder for each: what a stopped measurement left is of one number of steps
        rows = task.measure(student, steps, folder / f"measured-{steps}")
        measured[steps] = {name: tuple(_short(row[name]) for row in rows) for name in task.figures}
    if place.students is not None:
        place.students.mkdir(parents=True, exist_ok=True)
        shutil.copytree(student, place.students / run.key, dirs_exist_ok=True)
    return measured


def _short(value: float) -> float:
    """Six digits: no two trainings agree in more, and the files stay readable."""
    return float(f"{value:.6g}")


def _logged_seconds(metrics: Path) -> float:
    """Time of all steps, those of earlier calls included."""
    seconds = 0.0
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        try:
            seconds += parse_json(line, dict[str, Any]).get("seconds", 0.0)
        except UnreadableError:  # a line that a kill cut off
            continue
    return seconds


def _peak_mib() -> float:
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
