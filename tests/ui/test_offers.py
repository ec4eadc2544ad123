"""What the words of the command name: runs, models, and the teachers of both."""

import os
import shutil
from pathlib import Path

import pytest

from fewstep.backbones.source import EMBEDDED_TEACHER
from fewstep.errors import CheckpointError, ConfigError
from fewstep.ui.offers import Named, named_by
from tests.runs.made import line, made_run


def told(named: Named) -> list[tuple[str, bool, int, float]]:
    return [(offer.name, offer.few, offer.steps, offer.guidance_scale) for offer in named.offers]


def test_without_a_word_the_embedded_teacher_is_there() -> None:
    named = named_by([])
    assert [(offer.drawing.model.model, offer.few, offer.chosen) for offer in named.offers] == [
        (EMBEDDED_TEACHER, False, True)
    ]
    assert named.runs == ()


def test_a_run_brings_its_student_and_the_teacher_as_its_recipe_draws_it(tmp_path: Path) -> None:
    run = made_run(tmp_path, "sampling.teacher_steps=20", "sampling.teacher_guidance_scale=3", name="mine")
    named = named_by([str(run)])
    assert told(named) == [("teacher fewstep:digits", False, 20, 3.0), ("mine", True, 4, 1.0)]
    assert named.runs == (run,)
    assert named.of_run(run) == list(named.offers)


def test_runs_of_one_teacher_share_it(tmp_path: Path) -> None:
    first, second = made_run(tmp_path, name="one"), made_run(tmp_path, name="two")
    named = named_by([str(first), str(second)])
    assert [offer.name for offer in named.offers] == ["teacher fewstep:digits", "one", "two"]
    assert [offer.name for offer in named.of_run(second)] == ["teacher fewstep:digits", "two"]


def test_a_folder_of_runs_names_all_of_them_and_draws_with_the_newest(tmp_path: Path) -> None:
    for age, name in ((100, "older"), (10, "newer")):
        metrics = made_run(tmp_path, lines=[line(0, ca=1.0)], name=name) / "metrics.jsonl"
        os.utime(metrics, (metrics.stat().st_mtime - age,) * 2)
    named = named_by([str(tmp_path)])
    assert [path.name for path in named.runs] == ["newer", "older"]
    assert [offer.name for offer in named.offers if offer.chosen] == ["teacher fewstep:digits", "newer"]


def test_a_run_whose_teacher_is_gone_can_still_be_looked_at(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "whole", tmp_path / "run")
    config = run / "config.json"
    config.write_text(config.read_text().replace(str(finished / "teacher"), str(tmp_path / "gone")))
    named = named_by([str(run)])
    assert (named.offers, named.runs) == ((), (run,))
    assert named.of_run(run) == []
    (note,) = named.notes
    assert "cannot be drawn with" in note and "gone" in note


def test_choices_behind_a_model_are_its_own_numbers() -> None:
    named = named_by([f"{EMBEDDED_TEACHER},steps=7,guidance_scale=2.5,name=mine", EMBEDDED_TEACHER])
    assert told(named)[0] == ("mine", False, 7, 2.5)
    assert len(named.offers) == 2


def test_two_models_of_one_name_are_told_apart() -> None:
    named = named_by([f"{EMBEDDED_TEACHER},steps=7", f"{EMBEDDED_TEACHER},steps=8"])
    assert [offer.name for offer in named.offers] == [EMBEDDED_TEACHER, f"{EMBEDDED_TEACHER} (2)"]


def test_what_is_neither_a_run_nor_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no model_index\.json"):
        named_by([str(tmp_path)])


def test_a_damaged_run_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    run = made_run(tmp_path, name="mine")
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"mine cannot be looked at: config.json: .*not valid JSON"):
        named_by([str(run)])
