"""A run end to end with the embedded teacher: trained, measured, written, and nothing else left."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from benchmarks.evidence.making import Place, make
from benchmarks.evidence.outcome import Outcome, read_outcomes
from benchmarks.evidence.study import Run
from benchmarks.evidence.task import digits
from rich.console import Console

from fewstep.config.recipe import load_recipe
from fewstep.errors import CheckpointError
from fewstep.training.run import train
from tests.benchmarking.evidence.small import STUDY, TASK
from tests.demo.small import SMALL

FIRST = STUDY.runs(TASK)[0]


@dataclass(frozen=True)
class Made:
    """A run with what came of it."""

    outcome: Outcome
    place: Place


def place_in(folder: Path) -> Place:
    return Place(folder / "runs", folder / "results")


def made(run: Run, place: Place) -> Outcome:
    outcome = make(run, TASK, place)
    assert outcome is not None
    return outcome


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evidence")
    place = replace(place_in(folder), students=folder / "students")
    return Made(made(FIRST, place), place)


def test_every_figure_is_measured_at_all_steps_for_each_noise_seed(first: Made) -> None:
    assert set(first.outcome.measured) == set(FIRST.steps)
    assert all(set(figures) == set(TASK.figures) for figures in first.outcome.measured.values())
    assert {len(values) for figures in first.outcome.measured.values() for values in figures.values()} == {2}


def test_the_file_of_an_outcome_has_its_key_and_says_what_it_says(first: Made) -> None:
    assert (first.place.results / f"{FIRST.key}.json").is_file()
    assert read_outcomes(first.place.results) == {FIRST.key: first.outcome}
    assert first.outcome.serves(FIRST)


def test_of_a_finished_run_its_folder_is_gone_and_its_student_stays_where_it_was_asked_for(first: Made) -> None:
    assert not first.place.folder(FIRST).exists()
    assert first.place.students is not None
    assert (first.place.students / FIRST.key / "model_index.json").is_file()


def test_what_was_spent_is_written_down(first: Made) -> None:
    outcome = first.outcome
    assert outcome.train_seconds is not None and outcome.measure_seconds is not None and outcome.peak_mib is not None
    assert min(outcome.train_seconds, outcome.measure_seconds) > 0
    # PyTorch alone takes about 200 MiB
    assert 200 < outcome.peak_mib < 3072


def test_a_training_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(first: Made, tmp_path: Path) -> None:
    place = place_in(tmp_path)
    half = load_recipe(
        TASK.recipe, [*FIRST.settings, "budget.student_updates=1", "report.sheet_every=null", "checkpoint.every=null"]
    )
    train(half, output=place.folder(FIRST), console=Console(quiet=True))
    assert made(FIRST, place).measured == first.outcome.measured
    assert not place.folder(FIRST).exists()


def test_a_training_whose_loss_is_no_number_is_an_outcome_too(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    wild = replace(FIRST, overrides=(*FIRST.overrides, "student.lr=1000.0", "student.warmup=0"), updates=5)
    outcome = made(wild, place)
    assert outcome.diverged is not None
    assert (outcome.measured, outcome.serves(wild)) == ({}, True)
    assert not place.folder(wild).exists()


def test_an_outcome_that_was_cut_off_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "0123.json").write_text('{"key": "01')
    with pytest.raises(CheckpointError, match=r"0123\.json cannot be used.*Delete it"):
        read_outcomes(tmp_path)


def test_an_outcome_without_some_steps_does_not_serve_a_run_that_asks_for_them(first: Made) -> None:
    assert not first.outcome.serves(replace(FIRST, steps=(*FIRST.steps, 8)))


@pytest.mark.slow
def test_the_figures_of_digits_are_those_that_its_task_names(tmp_path: Path) -> None:
    place = Place(tmp_path / "runs", tmp_path / "results")
    outcome = make(FIRST, digits(SMALL), place)
    assert outcome is not None
    assert set(outcome.measured[2]) == set(TASK.figures)
    assert outcome.measured[2] != outcome.measured[1]
