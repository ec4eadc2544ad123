"""The page says what the outcomes say, what is noise, and what has not been run."""

from dataclasses import replace

import pytest
from benchmarks.evidence import page
from benchmarks.evidence.findings import Findings
from benchmarks.evidence.outcome import Outcome
from benchmarks.pages import filled

from tests.benchmarking.evidence.small import STUDY
from tests.benchmarking.evidence.test_findings import findings, outcome, run_of, whole


@pytest.fixture(scope="module")
def shipped() -> Findings:
    return page.findings_of()


def test_the_tables_of_the_page_are_those_of_the_outcomes(shipped: Findings) -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    assert filled(written, page.tables_of(shipped)) == written


def test_the_page_has_every_table(shipped: Findings) -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- table: {name} -->\n| " in written for name in page.tables_of(shipped))


def test_the_plots_beside_the_page_are_those_of_the_outcomes(shipped: Findings) -> None:
    for name, plot in page.plots_of(shipped).items():
        assert page.PAGE.with_name(name).read_text(encoding="utf-8") == plot
        assert f"]({name})" in page.PAGE.read_text(encoding="utf-8")


def test_every_stored_outcome_belongs_to_a_run_of_the_study(shipped: Findings) -> None:
    assert shipped.outcomes.keys() <= {run.key for run in shipped.runs}


def row(text: str, method: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f"| {method} |")).strip("| ").split(" | ")


def three_seeds(fd_without_cdm: float) -> list[Outcome]:
    # single trainings differ by .1
    reference = [whole(1.0, seed, fd=1.0 + 0.1 * seed, accuracy=0.9, recall=0.8) for seed in (0, 1)]
    other = [
        outcome(run_of("without cdm", 1.0, seed), fd=fd_without_cdm + 0.1 * seed, accuracy=0.9, recall=0.8)
        for seed in (0, 1)
    ]
    return [*reference, *other]


def test_a_difference_within_its_interval_is_called_noise() -> None:
    told = row(page.comparison_table(findings(*three_seeds(1.1)), STUDY.groups[0]), "without cdm")
    assert told[-2] == "+0.10 ± 0.30, noise"  # t(.975, 2) = 4.303, spread .0707, two means of two


def test_a_difference_beyond_its_interval_is_bold() -> None:
    told = row(page.comparison_table(findings(*three_seeds(1.5)), STUDY.groups[0]), "without cdm")
    assert told[-2] == "**+0.50 ± 0.30**"


@pytest.mark.parametrize(("fd", "verdict"), [(1.5, "as in the paper"), (0.5, "against the paper"), (1.1, "noise here")])
def test_the_verdict_compares_the_signs_beyond_noise(fd: float, verdict: str) -> None:
    # in the paper's scores the whole method is better, and more is better
    assert row(page.published_table(findings(*three_seeds(fd))), "without cdm")[-1] == verdict


def test_what_has_not_been_run_is_said_to_be_not_run() -> None:
    nothing = findings()
    assert row(page.comparison_table(nothing, STUDY.groups[0]), "without cdm")[4:] == ["not run", *["-"] * 6]
    assert row(page.published_table(nothing), "without cdm")[-1] == "not run"
    assert row(page.noise_table(nothing), "fd")[1] == "not run"
    assert row(page.steps_table(nothing), "whole")[1] == "not run"
    assert page.steps_plot(nothing).count(">not run<") == 2


def test_a_method_that_diverged_everywhere_is_said_to_have_diverged() -> None:
    told = page.comparison_table(findings(outcome(run_of("without cdm", 1.0), diverged="nan")), STUDY.groups[0])
    assert row(told, "without cdm")[4] == "diverged"


def test_the_state_counts_what_was_made_what_is_missing_and_what_lacks_steps() -> None:
    told = row(page.state_table(findings(*three_seeds(1.0))), "methods")
    # of eight trainings for two updates and four for more, four are there, not at the steps that the study asks for
    assert told == ["methods", "2", "12", "0", "0", "4", "8"]


def test_the_seeds_are_those_that_were_measured_at_the_steps() -> None:
    figures = {"fd": (1.0,), "recall": (0.8,)}
    first, second = (whole(1.0, seed, fd=1.0, accuracy=0.9, recall=0.8) for seed in (0, 1))
    first = replace(first, measured={**first.measured, 1: figures, 2: figures})
    second = replace(second, measured={**second.measured, 2: figures})
    assert row(page.steps_table(findings(first, second)), "whole")[1] == "1 to 2"
    assert row(page.steps_table(findings(first)), "whole")[1] == "1"
