"""Which settings make a run another run."""

import pytest

from fewstep.config import config_difference, config_hash, load_recipe
from fewstep.config.identity import earlier_hashes, identity


def hash_of(*overrides: str) -> str:
    return config_hash(load_recipe("digits", overrides).config)


def test_the_hash_is_eight_hexadecimal_digits() -> None:
    digits = hash_of()
    assert len(digits) == 8
    assert int(digits, 16) >= 0


@pytest.mark.parametrize(
    "override",
    [
        *("budget.student_updates=3", "report.sheet_every=null", "checkpoint.every=7", "parallel.threads=2"),
        *("memory.gradient_checkpointing=selective", "memory.keep_anchor_graph=false", "memory.microbatch=1"),
    ],
)
def test_budget_reporting_saving_place_and_memory_leave_the_hash(override: str) -> None:
    assert hash_of(override) == hash_of()


@pytest.mark.parametrize(
    "override",
    ["student.lr=1e-3", "seed=1", "terms.cdm=null", "batch=16", "backbone.model=other/one", "precision.compute=bf16"],
)
def test_what_a_run_computes_changes_the_hash(override: str) -> None:
    assert hash_of(override) != hash_of()


def test_a_stated_default_leaves_the_hash() -> None:
    assert hash_of("student.clip=1.0", "terms.dm.guidance_scale=1") == hash_of()


def test_the_difference_names_both_values() -> None:
    old, new = load_recipe("digits").config, load_recipe("digits", ["student.lr=2e-5", "student.ema=null"]).config
    assert config_difference(old, new) == ["student.lr: 0.0001 -> 2e-05", "student.ema: 0.999 -> null"]


def test_another_kind_is_one_difference() -> None:
    old, new = load_recipe("digits").config, load_recipe("digits", ["schedule.kind=fixed"]).config
    (line,) = config_difference(old, new)
    assert line.startswith('schedule: {"kind": "random_length"')
    assert line.endswith('-> {"kind": "fixed", "levels": [1.0, 0.75, 0.5, 0.25]}')


def test_equal_settings_have_no_difference() -> None:
    old, new = load_recipe("digits").config, load_recipe("digits", ["budget.student_updates=1"]).config
    assert config_difference(old, new) == []


def test_settings_that_came_later_leave_the_names_of_earlier_runs() -> None:
    config = load_recipe("digits").config
    settings = identity(config)
    assert "draw" not in settings and "length" not in settings["schedule"]
    assert config.model_dump()["draw"] == {"reuse_trajectory": False, "anchors": "independent"}


@pytest.mark.parametrize(
    "override", ["draw.reuse_trajectory=true", "draw.anchors=stratified", "schedule.length={law: geometric}"]
)
def test_another_draw_is_another_run(override: str) -> None:
    assert hash_of(override) != hash_of()


@pytest.mark.parametrize(
    "override",
    [
        *("simulation.step=renoise", "simulation.anchors=own", "fake_score.target=entering"),
        *("terms.dm.probe_of=entering", "terms.cdm.query={at: off_trajectory, of: last_anchor}"),
        *("terms.cdm.warmup=10", "terms.ca.renormalise=token", "terms.dm.normalise_over=4"),
        *("terms.cdm.query={at: fresh_noise, of: leaving}", "terms.cdm.query={at: fresh_noise}"),
    ],
)
def test_another_switch_of_the_published_code_is_another_run(override: str) -> None:
    assert hash_of(override) != hash_of()


def test_a_first_step_of_its_own_is_another_run() -> None:
    assert hash_of("schedule.min_steps=2", "terms.dp={}") != hash_of("schedule.min_steps=2")


@pytest.mark.parametrize("query", ["{at: off_trajectory}", "{at: fresh_noise}", "{at: last_anchor}"])
def test_switches_as_they_were_leave_the_names_of_earlier_runs(query: str) -> None:
    settings = identity(load_recipe("digits", [f"terms.cdm.query={query}", "terms.isg={}"]).config)
    assert "simulation" not in settings and "dp" not in settings["terms"]
    for term in (settings["terms"][name] for name in ("ca", "dm", "cdm")):
        assert not {"probe_of", "warmup", "renormalise", "normalise_over"} & term.keys() and "of" not in term["query"]


def test_a_difference_in_a_later_setting_is_one_line() -> None:
    old, new = load_recipe("digits").config, load_recipe("digits", ["draw.anchors=stratified"]).config
    assert config_difference(old, new) == ['draw.anchors: "independent" -> "stratified"']


def test_every_name_from_when_memory_was_part_of_it_is_known_and_its_own_comes_first() -> None:
    config = load_recipe(
        "digits", ["memory.gradient_checkpointing=selective", "memory.batch_frozen_calls=false"]
    ).config
    names = earlier_hashes(config)
    assert len(set(names)) == 12
    assert config_hash(config) in names
    assert names[0] == "a13147cf"  # that of tests/runs/old, which the code from then made
    assert earlier_hashes(load_recipe("digits").config)[0] == "2803b407"
