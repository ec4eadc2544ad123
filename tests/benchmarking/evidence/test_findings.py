"""From outcomes to what is said of a method: best scales, equal accuracy, spreads."""

from collections.abc import Mapping

import pytest
from benchmarks.evidence.findings import Findings
from benchmarks.evidence.intervals import Spread
from benchmarks.evidence.outcome import Outcome
from benchmarks.evidence.study import Run

from tests.benchmarking.evidence.small import STUDY, TASK

AT = TASK.steps
RUNS = [run for run in STUDY.runs(TASK) if run.budget == "updates"]


def outcome(run: Run, *, diverged: str | None = None, **figures: float | tuple[float, ...]) -> Outcome:
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in figures.items()}
    measured = {} if diverged else {AT: values}
    return Outcome(run.key, run.settings, run.updates, run.units, "0", None, None, None, diverged, measured)


def run_of(method: str, scale: float, seed: int = 0) -> Run:
    return next(run for run in RUNS if (run.method, run.scale, run.seed) == (method, scale, seed))


def findings(*made: Outcome) -> Findings:
    outcomes: Mapping[str, Outcome] = {one.key: one for one in made}
    return Findings(STUDY, TASK, outcomes)


def whole(scale: float, seed: int, *, fd: float, accuracy: float, recall: float) -> Outcome:
    return outcome(run_of("whole", scale, seed), fd=fd, accuracy=accuracy, recall=recall)


def test_the_best_scale_is_the_one_with_the_least_mean_distance() -> None:
    found = findings(
        whole(1.0, 0, fd=1.0, accuracy=0.9, recall=0.9),
        whole(1.0, 1, fd=4.0, accuracy=0.9, recall=0.9),
        whole(2.0, 0, fd=2.0, accuracy=0.9, recall=0.9),
    )
    best = found.line("whole").best(TASK)
    assert best is not None and best.scale == 2.0


def test_a_training_counts_once_with_the_mean_of_its_noise_seeds() -> None:
    found = findings(outcome(run_of("whole", 1.0), fd=(1.0, 2.0, 6.0)))
    assert found.line("whole").points[0].values("fd", AT) == [3.0]


def test_recall_at_equal_accuracy_lies_between_the_scales_around_it() -> None:
    found = findings(
        whole(1.0, 0, fd=1.0, accuracy=0.90, recall=0.8),
        whole(2.0, 0, fd=1.0, accuracy=0.94, recall=0.6),
    )
    assert found.line("whole").recalls_at(0.91, TASK) == [pytest.approx(0.75)]


@pytest.mark.parametrize("accuracy", [0.89, 0.95])
def test_a_curve_that_does_not_reach_an_accuracy_has_no_recall_there(accuracy: float) -> None:
    found = findings(
        whole(1.0, 0, fd=1.0, accuracy=0.90, recall=0.8),
        whole(2.0, 0, fd=1.0, accuracy=0.94, recall=0.6),
    )
    assert found.line("whole").recalls_at(accuracy, TASK) == []


def test_each_seed_has_a_curve_of_its_own() -> None:
    found = findings(
        whole(1.0, 0, fd=1.0, accuracy=0.90, recall=0.8),
        whole(2.0, 0, fd=1.0, accuracy=0.94, recall=0.6),
        whole(1.0, 1, fd=1.0, accuracy=0.92, recall=0.9),
        whole(2.0, 1, fd=1.0, accuracy=0.92, recall=0.7),
    )
    assert found.line("whole").recalls_at(0.92, TASK) == [pytest.approx(0.7), pytest.approx(0.9)]


def test_the_spread_is_of_trainings_and_that_of_noise_seeds_stands_alone() -> None:
    found = findings(
        outcome(run_of("whole", 1.0, 0), fd=(1.0, 3.0)),
        outcome(run_of("whole", 1.0, 1), fd=(4.0, 6.0)),
        outcome(run_of("whole", 2.0, 0), fd=(9.0, 9.0)),
    )
    assert found.spread("fd", AT) == Spread(pytest.approx(3 / 2**0.5), 1)
    assert found.noise_spread("fd", AT) == Spread(pytest.approx((4 / 3) ** 0.5), 3)


def test_a_diverged_training_has_no_figure_and_is_counted() -> None:
    found = findings(outcome(run_of("whole", 1.0), diverged="the loss is nan"))
    point = found.line("whole").points[0]
    assert (point.values("fd", AT), point.diverged) == ([], (0,))


def test_what_is_the_same_at_both_budgets_is_one_line() -> None:
    lines = findings().lines(STUDY.groups[0])
    assert [(line.method, line.trained_for) for line in lines] == [
        ("whole", "equal updates and equal cost"),
        ("without cdm", "equal updates"),
        ("without cdm", "equal cost"),
    ]
