"""What one run's folder says of it."""

import json
from pathlib import Path

import pytest

from fewstep.config.recipe import load_recipe
from fewstep.errors import CheckpointError, ConfigError
from fewstep.runs.summary import summary_of
from tests.runs.made import line, made_run

LINES = [
    *(line(3, fake_score=0.5, ca=2.0), {"step": 3, "evaluation/digits": 0.25}),
    *(line(5, fake_score=0.25, ca=3.0), {"step": 5, "evaluation/digits": 0.125}),
    line(6, fake_score=0.75),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = made_run(tmp_path, "student.lr=2e-5", lines=LINES, saved=[4, 6])
    (folder / "checkpoints" / "latest").write_text("step-00000006\n")
    (folder / "checkpoints" / "best").write_text("step-00000004\n")
    (folder / "sheets").mkdir()
    for name in ("update-000001.png", "update-000010.png", ".update-000011.png.unfinished"):
        (folder / "sheets" / name).touch()
    return folder


def test_what_differs_from_its_recipe_is_told_whatever_a_resume_may_change(run: Path) -> None:
    found = summary_of(run)
    whole = load_recipe("digits").config.budget.student_updates
    assert found.changes == ["student.lr: 0.0001 -> 2e-05", f"budget.student_updates: {whole} -> 10"]
    assert found.not_compared is None


@pytest.mark.parametrize("recipe", ["mine", "digits\n"])
def test_a_recipe_that_has_no_name_is_not_compared(recipe: str, run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "recipe": recipe}))
    assert "is a file, or of a package that is not installed" in str(summary_of(run).not_compared)


def test_figures_are_the_last_of_each_and_measurements_stand_apart(run: Path) -> None:
    found = summary_of(run)
    assert found.figures == {"num_anchors": 3.0, "loss/fake_score": 0.75, "loss/ca": 3.0}
    assert (found.evaluation, found.best_evaluation) == ({"digits": 0.125}, {"digits": 0.25})


def test_checkpoints_sheets_sessions_and_progress_are_told(run: Path) -> None:
    found = summary_of(run)
    assert (found.checkpoints, found.latest, found.best) == (
        ["step-00000004", "step-00000006"],
        "step-00000006",
        "step-00000004",
    )
    assert found.sheets == ["update-000001.png", "update-000010.png"]
    assert (found.row.updates, found.row.asked, len(found.sessions)) == (3, 10, 1)
    assert run.name == f"digits-{found.config_hash}"


def test_a_run_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    found = summary_of(made_run(tmp_path))
    assert (found.figures, found.checkpoints, found.latest, found.best, found.sheets) == ({}, [], None, None, [])
    assert found.row.updates == 0


def test_what_is_no_run_or_is_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        summary_of(tmp_path)
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match="its line 1 is damaged: it names no step"):
        summary_of(run)
