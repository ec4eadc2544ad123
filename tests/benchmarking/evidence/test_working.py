"""Through a study: each key once, stopped in good order, in processes of their own."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from benchmarks.evidence.making import Place
from benchmarks.evidence.outcome import Outcome, read_outcomes
from benchmarks.evidence.study import Run
from benchmarks.evidence.task import Figures
from benchmarks.evidence.working import Work, expected_hours, waiting, work
from benchmarks.pages import ROOT

from fewstep.runs.places import checkpoints
from tests.benchmarking.evidence.small import STUDY, TASK, mean_pixels

RUNS = STUDY.runs(TASK)


def outcome_of(run: Run, *, seconds: float = 10.0) -> Outcome:
    measured = {steps: {"fd": (1.0,)} for steps in run.steps}
    return Outcome(run.key, run.settings, run.updates, run.units, "0", seconds, seconds, 1.0, None, measured)


def outcomes(*runs: Run) -> Mapping[str, Outcome]:
    return {run.key: outcome_of(run) for run in runs}


def test_what_is_there_is_not_made_again() -> None:
    left = waiting(RUNS, outcomes(RUNS[0]))
    assert RUNS[0].key not in {run.key for run in left}
    assert len(left) == len({run.key for run in RUNS}) - 1


def test_two_places_of_a_study_with_one_key_are_made_once() -> None:
    left = waiting(RUNS, {})
    assert len(left) == len({run.key for run in left}) < len(RUNS)


def test_hours_are_those_of_measured_seconds_at_the_cost_of_what_is_left() -> None:
    first = RUNS[0]
    longer = replace(first, updates=2 * first.updates)
    # ten seconds of training become twenty, ten of measuring stay
    assert expected_hours([longer], outcomes(first)) == pytest.approx(30 / 3600)


def test_without_a_measured_run_the_hours_are_unknown() -> None:
    assert expected_hours(RUNS, {}) is None


def test_with_no_time_left_nothing_is_begun(tmp_path: Path) -> None:
    told: list[str] = []
    assert work(Work(RUNS, TASK, Place(tmp_path, tmp_path / "results"), minutes=0.0), told.append) == "stopped"
    assert not list(tmp_path.iterdir())
    assert f"{len(waiting(RUNS, {}))} left, unknown hours" in told[0]


def test_with_everything_there_all_is_done_and_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    place = Place(tmp_path / "runs", tmp_path / "results")
    outcome_of(RUNS[0]).write(place.results)
    place.folder(RUNS[0]).mkdir(parents=True)
    assert work(Work(RUNS[:1], TASK, place), lambda line: None) == "done"
    assert not place.folder(RUNS[0]).exists()


def broken_for_the_first(student: Path, steps: int, folder: Path) -> Sequence[Figures]:
    if student.parent.name == RUNS[0].key:
        raise RuntimeError("no figure today")
    return mean_pixels(student, steps, folder)


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_are_made(tmp_path: Path) -> None:
    place, told = Place(tmp_path / "runs", tmp_path / "results"), list[str]()
    failing = Work(waiting(RUNS, {})[:2], replace(TASK, measure=broken_for_the_first), place)
    assert work(failing, told.append) == "failed"
    assert read_outcomes(place.results).keys() == {failing.runs[1].key}
    assert [line for line in told if line.startswith("Failed")] == [f"Failed: {RUNS[0].title}; what it says is above."]
    assert work(replace(failing, task=TASK), told.append) == "done"
    assert read_outcomes(place.results).keys() == {run.key for run in failing.runs}
    assert [path.name for path in place.runs.iterdir()] == [".cache"]
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_study_that_is_asked_to_end_saves_its_training(tmp_path: Path) -> None:
    endless = replace(STUDY, overrides=(*STUDY.overrides, "budget.student_updates=1000000"))
    (tmp_path / "study.json").write_text(json.dumps(asdict(endless)))
    options = ("--study", "study.json", "--runs", "runs", "--results", "results")
    command = [sys.executable, "-m", "benchmarks.evidence", *options]
    path = os.pathsep.join([str(ROOT), *sys.path])
    study = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    try:
        while study.poll() is None and not list(tmp_path.glob("runs/*/metrics.jsonl")):
            time.sleep(0.2)
        study.terminate()
        assert study.wait(600) == 128 + signal.SIGTERM
    finally:
        study.kill()
    (run,) = tmp_path.glob("runs/*/run.json")
    assert checkpoints(run.parent / "checkpoints")
    assert not list(tmp_path.glob("results/*"))
