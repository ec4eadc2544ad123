"""A study's runs: what names them, what they cost, and that the shipped study says what it means."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.evidence.__main__ import chosen
from benchmarks.evidence.page import STUDY as SHIPPED
from benchmarks.evidence.study import Group, Method, Run, Study, load_study
from benchmarks.evidence.task import digits

from fewstep.config.identity import identity
from fewstep.config.recipe import load_recipe
from fewstep.demo.protocol import Protocol
from fewstep.errors import ConfigError
from tests.benchmarking.evidence.small import STUDY, TASK


def run_of(study: Study, method: str, *, budget: str = "updates", seed: int = 0, scale: float | None = 1.0) -> Run:
    found = (run for run in study.runs(TASK) if (run.method, run.budget, run.seed) == (method, budget, seed))
    return next(run for run in found if run.scale == scale)


@pytest.fixture(scope="module")
def shipped() -> Study:
    return load_study(SHIPPED)


def test_another_seed_scale_method_or_budget_has_another_key() -> None:
    runs = [
        run_of(STUDY, "whole"),
        run_of(STUDY, "whole", seed=1),
        run_of(STUDY, "whole", scale=2.0),
        run_of(STUDY, "without cdm"),
        run_of(STUDY, "without cdm", budget="forwards"),
    ]
    assert len({run.key for run in runs}) == len(runs)


def test_another_way_to_measure_has_another_key() -> None:
    other = digits(Protocol(real_diversity=1.0, noise_seeds=(7,)))
    assert {run.key for run in STUDY.runs(TASK)}.isdisjoint(run.key for run in STUDY.runs(other))


def test_where_something_runs_is_no_part_of_its_key() -> None:
    elsewhere = replace(STUDY, overrides=(*STUDY.overrides, "parallel.threads=2", "report.log_every=5"))
    assert [run.key for run in elsewhere.runs(TASK)] == [run.key for run in STUDY.runs(TASK)]


def test_a_method_is_trained_for_the_updates_that_cost_what_those_of_the_reference_cost() -> None:
    whole, cheap = run_of(STUDY, "whole"), run_of(STUDY, "without cdm")
    longer = replace(STUDY, overrides=(*STUDY.overrides, "budget.student_updates=1000"))
    at_equal_cost = run_of(longer, "without cdm", budget="forwards")
    assert cheap.units < whole.units
    assert at_equal_cost.updates == round(1000 * whole.units / cheap.units)
    assert abs(at_equal_cost.updates * cheap.units - 1000 * whole.units) <= cheap.units / 2


def test_the_reference_is_made_once_for_both_budgets() -> None:
    assert run_of(STUDY, "whole").key == run_of(STUDY, "whole", budget="forwards").key


def test_what_says_most_of_an_unfinished_study_comes_first(shipped: Study) -> None:
    runs = shipped.runs(TASK)
    assert {run.method for run in runs[: len(shipped.methods)]} == shipped.methods.keys()
    middle = {1.25, 2.25, None}
    ends = [index for index, run in enumerate(runs) if run.scale not in middle]
    assert len(ends) == len(runs) - min(ends)  # the ends of the curves come last
    assert {run.seed for run in runs[: min(ends)]} == {0, 1, 2}
    for part in (runs[: min(ends)], runs[min(ends) :]):
        seeds = [run.seed for run in part]
        assert seeds == sorted(seeds)


def test_only_named_methods_groups_and_seeds_are_chosen() -> None:
    runs = STUDY.runs(TASK)
    assert {run.method for run in chosen(runs, only=["without ca", "whole"], seeds=None)} == {"without ca", "whole"}
    assert {run.group for run in chosen(runs, only=["ablations"], seeds=None)} == {"ablations"}
    assert {run.seed for run in chosen(runs, only=[], seeds=[1])} == {1}


def test_a_method_that_the_study_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'--only names "?\'?wohle.*whole, without cdm'):
        chosen(STUDY.runs(TASK), only=["wohle"], seeds=None)


def write(path: Path, **changed: Any) -> Path:
    stated = {"task": "digits", "reference": "a", "curves": {}, "groups": [group("a")], **changed}
    path.write_text(json.dumps(stated))
    return path


def group(*methods: str, curve: str | None = None) -> dict[str, Any]:
    named = [{"name": method, "curve": curve} for method in methods]
    return {"name": "methods", "seeds": [0], "steps": [4], "methods": named}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"groups": [group("a", "a")]}, "has two methods called 'a'"),
        ({"reference": "b"}, "compares with 'b', which is none of its methods"),
        ({"task": "letters"}, "has the task 'letters'; it must be one of digits"),
        ({"groups": [group("a", curve="g")], "curves": {}}, "gives a the curve 'g'"),
        ({"curves": 3}, "cannot be used: curves is 3"),
    ],
)
def test_a_study_that_does_not_fit_together_is_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_study(write(tmp_path / "study.json", **changed))


@pytest.mark.parametrize(
    ("method", "scale", "recipe"),
    [
        ("CDM", 1.25, "digits"),
        ("D-DMD", 1.25, "digits-d-dmd"),
        ("D-DMD + cdm", 1.25, "digits-cheap-cdm"),
        ("DMD2", 1.5, "digits-dmd2"),
    ],
)
def test_a_method_of_the_shipped_study_is_the_recipe_of_that_name(
    shipped: Study, method: str, scale: float, recipe: str
) -> None:
    run = next(run for run in shipped.runs(digits()) if (run.method, run.scale, run.seed) == (method, scale, 0))
    ours = load_recipe("digits", run.settings).config
    assert identity(ours) == identity(load_recipe(recipe, ["seed=0"]).config)


def test_methods_have_three_seeds_and_ablations_one(shipped: Study) -> None:
    methods, ablations, _ = shipped.groups
    assert [len(methods.methods), len(methods.seeds), len(ablations.seeds)] == [5, 3, 1]
    assert sorted(methods.steps) == [1, 2, 3, 4, 6, 8]


def test_the_papers_scores_are_those_of_the_page_on_reproducing_it(shipped: Study) -> None:
    page = (SHIPPED.parents[2] / "docs" / "reproducing.md").read_text()
    scores = [method.published for method in shipped.methods.values() if method.published is not None]
    assert len(scores) == 7
    assert all(f"| {score:.3f} |" in page for score in scores)


def test_every_published_switch_is_an_ablation(shipped: Study) -> None:
    stated = {override for method in shipped.methods.values() for override in method.overrides}
    assert stated >= {
        "terms.cdm.probe_of=leaving",
        "terms.cdm.probe_of=query",
        "simulation.anchors=own",
        "fake_score.target=entering",
        "simulation.step=renoise",
    }


def test_a_group_has_both_budgets_unless_it_says_otherwise() -> None:
    assert Group("one", (0,), (4,), (Method("a"),)).budgets == ("updates", "forwards")
