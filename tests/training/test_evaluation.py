"""Metrics that run while a student trains, and the checkpoint they keep."""

import json
from pathlib import Path

import pytest

from fewstep.config.recipe import load_recipe
from fewstep.errors import ConfigError
from fewstep.evaluation.during_training import Measurement, TrainingEvaluation
from fewstep.export.weights import read_student
from fewstep.runs.folder import RunFolder
from fewstep.runs.places import checkpoints, completed_steps, pointed_to
from tests.backbones import tiny, tiny_wan
from tests.training.test_run import metrics
from tests.training.tiny_run import recipe, run

SHORT = (
    *("batch=2", "budget.student_updates=3", "schedule.max_steps=2", "checkpoint.keep_last=1"),
    "report.sheet_every=null",
)
EVALUATION = "evaluation={every: 1, metrics: [digits], num_prompts: 2, num_seeds: 2, keep_best: digits}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose first measurement counts as better than the others; the metric itself runs every time."""
    better = [True, False, False]
    measure = TrainingEvaluation.measure

    def measured(evaluation: TrainingEvaluation, *arguments: object, **named: object) -> Measurement:
        found = measure(evaluation, *arguments, **named)  # type: ignore[arg-type]
        return Measurement(found.figures, better.pop(0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingEvaluation, "measure", measured)
        return run(load_recipe("digits", [*SHORT, EVALUATION]), tmp_path_factory.mktemp("kept") / "run")


def test_metrics_are_measured_and_the_best_student_is_kept(kept: RunFolder) -> None:
    told = [line for line in metrics(kept.path) if "evaluation/digits" in line]
    assert [line["step"] for line in told] == [1, 3, 5]
    assert all(0.0 <= line["evaluation/digits"] <= 1.0 for line in told)
    assert len(list((kept.path / "evaluation" / "update-000001").glob("*.png"))) == 4
    assert [completed_steps(path) for path in checkpoints(kept.checkpoints)] == [2, 6]
    assert pointed_to(kept.checkpoints / "best") == kept.checkpoints / "step-00000002"


def test_the_best_checkpoint_can_be_exported_by_its_name(kept: RunFolder) -> None:
    assert read_student(kept.checkpoints / "best").provenance["steps"] == 2
    assert read_student(kept.checkpoints / "latest").provenance["steps"] == 6
    assert read_student(kept.path).provenance["steps"] == 6


def test_a_metric_that_cannot_run_stops_the_run_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no metric 'beauty'"):
        run(load_recipe("digits", [*SHORT, "evaluation={every: 1, metrics: [beauty]}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_own_judgement_of_the_best_is_written(tmp_path: Path) -> None:
    folder = run(load_recipe("digits", [*SHORT, EVALUATION]), tmp_path / "run")
    best = json.loads((folder.path / "evaluation" / "best.json").read_text())
    kept = pointed_to(folder.checkpoints / "best")
    assert kept is not None and kept.is_dir()
    assert best["figure"] == "digits" and completed_steps(kept) == 2 * best["update"]


def test_a_run_of_videos_is_measured_frame_by_frame(tmp_path: Path) -> None:
    teacher = tiny.save(tiny_wan.wan_pipeline(), tmp_path / "wan")
    size = "height: 32, width: 32, frames: 5, max_sequence_length: 24"
    made = recipe(
        tmp_path,
        f"backbone={{kind: wan, model: {teacher}, {size}}}",
        "evaluation={every: 1, metrics: [digits, flicker], num_prompts: 2, keep_best: flicker}",
        *("budget.student_updates=1", "batch=2", "schedule.max_steps=2", "report.sheet_every=null"),
    )
    folder = run(made, tmp_path / "run")
    (told,) = [line for line in metrics(folder.path) if "evaluation/flicker" in line]
    assert 0 < told["evaluation/flicker"] < 1 and 0 <= told["evaluation/digits"] <= 1
    frames = sorted(path.name for path in (folder.path / "evaluation" / "update-000001").iterdir())
    assert frames == [f"{prompt:05d}.seed0.frame{frame:04d}.png" for prompt in range(2) for frame in range(5)]
