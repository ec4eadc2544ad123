"""Overrides and bases: what lies on top wins, null switches off, another kind replaces."""

from pathlib import Path

import pytest

from fewstep.config import load_recipe
from fewstep.config.layers import merge, recipe_text
from fewstep.core.schedules import FixedSchedule, RandomLengthSchedule, UniformLevels
from fewstep.core.sigmas import LogitNormal
from fewstep.errors import ConfigError


def test_an_exponent_without_a_point_is_a_number() -> None:
    assert load_recipe("digits", ["student.lr=1e-4"]).config.student.lr == 1e-4


def test_a_later_override_wins() -> None:
    assert load_recipe("digits", ["batch=8", "batch=16"]).config.batch == 16


def test_an_override_leaves_its_neighbours_alone() -> None:
    base, config = load_recipe("digits").config, load_recipe("digits", ["terms.ca.scale=5"]).config
    assert config.terms.ca is not None
    assert config.terms.ca.scale == 5.0
    assert (config.terms.dm, config.terms.cdm, config.student) == (base.terms.dm, base.terms.cdm, base.student)


def test_null_switches_a_term_off() -> None:
    assert load_recipe("digits", ["terms.cdm=null"]).config.terms.cdm is None


def test_null_switches_off_what_is_on_by_default() -> None:
    assert load_recipe("digits", ["fake_score.align=null"]).config.fake_score.align is None


def test_a_term_that_was_off_comes_back_with_its_defaults() -> None:
    terms = load_recipe("digits-dmd2", ["terms.ca.scale=3"]).config.terms
    assert terms.ca is not None
    assert (terms.ca.scale, terms.ca.weight) == (3.0, 1.0)


def test_another_kind_replaces_the_settings_of_the_old_kind() -> None:
    assert load_recipe("digits", ["schedule.kind=fixed"]).config.schedule == FixedSchedule()


def test_the_order_of_a_kind_and_its_settings_does_not_matter() -> None:
    overrides = ["schedule.levels=[1.0, 0.5]", "schedule.kind=fixed"]
    assert load_recipe("digits", overrides).config.schedule == FixedSchedule(levels=(1.0, 0.5))


def test_another_law_replaces_the_bounds_of_the_old_law() -> None:
    schedule = load_recipe("digits", ["terms.dm.probe={law: logit_normal, std: 2}"]).config.terms.dm
    assert schedule is not None
    assert schedule.probe == LogitNormal(mean=0.0, std=2.0)


def test_an_override_may_be_a_mapping() -> None:
    schedule = load_recipe("digits", ["schedule={max_steps: 8, inner: {low: 0.5}}"]).config.schedule
    assert schedule == RandomLengthSchedule(min_steps=1, max_steps=8, inner=UniformLevels(low=0.5, high=0.95))


def test_merging_changes_neither_mapping() -> None:
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_a_file_builds_on_a_built_in_recipe(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: digits\nstudent: {lr: 2e-4}\n")
    recipe = load_recipe(mine)
    assert recipe.name == "mine"
    assert recipe.config.student.lr == 2e-4
    assert recipe.config.fake_score == load_recipe("digits").config.fake_score


def test_a_file_builds_on_a_file_beside_it_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below.yaml").write_text("base: digits\nbatch: 8\nseed: 7\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nbatch: 4\n")
    monkeypatch.chdir("/")
    config = load_recipe(tmp_path / "above.yaml", ["seed=9"]).config
    assert (config.batch, config.seed) == (4, 9)


def test_bases_that_go_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"bases go in a circle: .*a.yaml -> .*b.yaml -> .*a.yaml. Remove one"):
        load_recipe(tmp_path / "a.yaml")


def test_a_prompt_path_in_a_file_is_relative_to_that_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: digits\nprompts: {kind: file, path: texts/p.txt}\n")
    prompts = load_recipe(mine).config.prompts
    assert prompts.kind == "file"
    assert prompts.path == str(tmp_path / "texts" / "p.txt")


def test_a_prompt_path_on_the_command_line_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = load_recipe("digits", ["prompts.kind=file", "prompts.path=p.txt"]).config.prompts
    assert prompts.kind == "file"
    assert prompts.path == str(tmp_path / "p.txt")


def test_a_model_path_in_a_file_is_relative_to_that_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: digits\nbackbone: {model: ./teacher}\n")
    assert load_recipe(mine).config.backbone.model == str(tmp_path / "teacher")


def test_a_repository_id_stays_as_it_is_written() -> None:
    assert load_recipe("digits", ["backbone.model=owner/name"]).config.backbone.model == "owner/name"


def test_the_text_of_a_recipe_keeps_its_comments(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: digits  # mine\n")
    assert recipe_text(str(mine)) == "base: digits  # mine\n"


def test_settings_are_frozen() -> None:
    config = load_recipe("digits").config
    with pytest.raises(ValueError, match="frozen"):
        config.student.lr = 1.0  # type: ignore[misc]
