"""Through a study, one run after the other, each in a process of its own, until it is done or the time is over."""

import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.evidence.making import Place, make
from benchmarks.evidence.outcome import Outcome, read_outcomes
from benchmarks.evidence.study import Run
from benchmarks.evidence.task import Task
from fewstep.training.signals import end_on_signals

Ending = Literal["done", "stopped", "failed"]


@dataclass(frozen=True)
class Work:
    """What a call is to do.

    Attributes:
        runs: Of the study, in order.
        task: What they are made of.
        place: Where.
        minutes: After which it stops in good order; None is never.
    """

    runs: Sequence[Run]
    task: Task
    place: Place
    minutes: float | None = None


def waiting(runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[Run]:
    """The runs that have to be made, each key once."""
    left: dict[str, Run] = {}
    for run in runs:
        outcome = outcomes.get(run.key)
        if outcome is None or not outcome.serves(run):
            left.setdefault(run.key, run)
    return list(left.values())


def expected_hours(runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> float | None:
    """Hours of these runs by the seconds of those that were measured; None when none was."""
    timed = [one for one in outcomes.values() if one.train_seconds and one.measure_seconds]
    if not timed:
        return None
    per_forward = sum(one.train_seconds or 0.0 for one in timed) / sum(one.updates * one.units for one in timed)
    # more steps of a picture are more network calls
    per_call = sum(one.measure_seconds or 0.0 for one in timed) / sum(sum(one.measured) or 1 for one in timed)
    return sum(run.updates * run.units * per_forward + sum(run.steps) * per_call for run in runs) / 3600


def told(left: Sequence[Run], outcomes: Mapping[str, Outcome]) -> str:
    """How much is left, in runs and in hours."""
    hours = expected_hours(left, outcomes)
    return f"{len(left)} left, {'unknown' if hours is None else f'{hours:.1f}'} hours."


def work(asked: Work, tell: Callable[[str], None]) -> Ending:
    """Make what is not there; a run that fails is told, and the others go on."""
    end = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    _tidy(asked)
    failed: list[Run] = []
    while True:
        outcomes = read_outcomes(asked.place.results)
        left = [run for run in waiting(asked.runs, outcomes) if run not in failed]
        if not left:
            return "failed" if failed else "done"
        tell(f"{told(left, outcomes)} Now: {left[0].title}")
        remaining = None if end is None else end - time.monotonic()
        if remaining is not None and remaining <= 0:
            return "stopped"
        ending = _in_a_child(left[0], asked, remaining)
        if ending == "stopped":
            return "stopped"
        if ending == "failed":
            tell(f"Failed: {left[0].title}; what it says is above.")
            failed.append(left[0])


def _tidy(asked: Work) -> None:
    """Remove what a kill left of runs whose outcome had been written."""
    outcomes = read_outcomes(asked.place.results)
    for run in asked.runs:
        if run.key in outcomes and outcomes[run.key].serves(run):
            shutil.rmtree(asked.place.folder(run), ignore_errors=True)


def _in_a_child(run: Run, asked: Work, seconds: float | None) -> Ending:
    """Make a run in another process, whose memory goes with it; asked to stop when its seconds are over."""
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(run, asked.task, asked.place))
    child.start()
    try:
        child.join(seconds)
        stopped = child.is_alive()
    finally:
        if child.is_alive():
            child.terminate()  # a training saves and ends; a measurement is made again
        child.join()
    if stopped:
        return "stopped"
    written = read_outcomes(asked.place.results).get(run.key)
    if child.exitcode == 0:
        return "done" if written is not None and written.serves(run) else "stopped"
    return "failed"


def _child(run: Run, task: Task, place: Place) -> None:
    end_on_signals()
    make(run, task, place)
