"""A run on two processes whose health alarm sends it back to its last healthy checkpoint, as one process does it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fewstep.runs.places import HEALTHY, checkpoints, completed_steps, pointed_to
from tests.distributed.conftest import start
from tests.distributed.test_failure import sentences
from tests.distributed.test_spread import assert_same_run
from tests.training.test_health import FAST, SWERVE_PROBE, SWERVING
from tests.training.tiny_run import recipe, run

pytestmark = pytest.mark.slow

# eps keeps AdamW from turning rounding into whole steps
SETTINGS = (
    *SWERVING,
    *("student.eps=1e-3", "fake_score.eps=1e-3", "budget.student_updates=8", "checkpoint={every: 1, keep_last: 2}"),
    f"health={{{SWERVE_PROBE}, action: {{kind: rewind, lower_lr: 0.05, most: 3}}}}",
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process; its folder has the recipe of the others."""
    folder = tmp_path_factory.mktemp("going-back")
    run(recipe(folder, *SETTINGS), folder / "one")
    assert rewinds(folder / "one")
    return folder


def rewinds(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "rewinds.json").read_text())  # type: ignore[no-any-return]


def by_two(folder: Path, name: str, *options: str, misbehaving: str | None = None) -> subprocess.CompletedProcess[str]:
    """The run on two processes, of which the second may do something."""
    program = ["fewstep"] if misbehaving is None else ["tests.distributed.misbehave", misbehaving, "1", "0"]
    recipe_file = str(folder / "tiny.yaml")
    return start(2, "-m", *program, "train", recipe_file, *SETTINGS, "--output", str(folder / name), *options)


def test_two_processes_go_back_where_one_does_and_compute_the_same_run(alone: Path) -> None:
    done = by_two(alone, "two")
    assert done.returncode == 0, done.stderr
    assert rewinds(alone / "two") == rewinds(alone / "one")
    assert done.stderr.count("Went back from step ") == len(rewinds(alone / "two"))
    assert_same_run(alone / "two", alone / "one")


def test_a_process_killed_while_all_go_back_costs_a_resume_and_no_figure(alone: Path) -> None:
    done = by_two(alone, "killed", misbehaving="kill-going-back")
    assert done.returncode != 0
    (back,) = rewinds(alone / "killed")
    folder = alone / "killed" / "checkpoints"
    assert completed_steps(checkpoints(folder)[-1]) == back["to_step"]
    assert pointed_to(folder / HEALTHY) == checkpoints(folder)[-1]
    again = by_two(alone, "killed", "--resume")
    assert again.returncode == 0, again.stderr
    assert rewinds(alone / "killed") == rewinds(alone / "one")
    assert_same_run(alone / "killed", alone / "one")


def test_two_processes_that_may_not_go_back_again_save_and_say_so_once(alone: Path) -> None:
    health = "health={start: 1, window: 3, action: {kind: rewind, lower_lr: 0.99, most: 1}}"
    done = by_two(alone, "spent", *FAST, "terms.ca.scale=2", "budget.student_updates=5", "checkpoint.every=1", health)
    assert done.returncode != 0
    assert len(sentences(done)) == 1
    assert "and stopped after going back once." in sentences(done)[0]
    last = completed_steps(checkpoints(alone / "spent" / "checkpoints")[-1])
    assert f"The run was saved at step {last} " in sentences(done)[0]
