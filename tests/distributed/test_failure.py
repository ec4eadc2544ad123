"""What happens to the others when one process of a run stops, and how the run goes on."""

import subprocess
from pathlib import Path

import pytest

from fewstep.runs.places import checkpoints
from tests.distributed.conftest import start
from tests.distributed.test_spread import assert_same_run
from tests.training.tiny_run import recipe, run, write_inputs

# eps keeps AdamW from turning rounding into whole steps
SETTINGS = ("budget.student_updates=2", "student.eps=1e-3", "fake_score.eps=1e-3")


def train(folder: Path, *options: str) -> list[str]:
    """The command of the tiny run in ``folder``."""
    return ["train", str(folder / "tiny.yaml"), *SETTINGS, "--output", str(folder / "run"), *options]


def misbehaving(folder: Path, action: str, *options: str, rank: int, step: int) -> subprocess.CompletedProcess[str]:
    write_inputs(folder)
    return start(2, "-m", "tests.distributed.misbehave", action, str(rank), str(step), *train(folder, *options))


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("fewstep: ")]


def test_the_others_name_the_process_that_was_killed(tmp_path: Path) -> None:
    done = misbehaving(tmp_path, "kill", rank=1, step=2)
    assert done.returncode != 0
    assert len(sentences(done)) == 1
    assert "Process 1 is gone without a word" in sentences(done)[0]
    assert "start the same command with --resume" in sentences(done)[0]


@pytest.mark.slow
def test_the_error_of_one_process_is_told_by_it_and_ends_all(tmp_path: Path) -> None:
    done = misbehaving(tmp_path, "fail", rank=1, step=1)
    assert done.returncode != 0
    assert "fewstep: The disk of this process is broken; replace it." in sentences(done)
    others = [line for line in sentences(done) if "The disk" not in line.partition("CheckpointError")[0]]
    assert all("Process 1 stopped with CheckpointError: The disk" in line for line in others)


@pytest.mark.slow
def test_a_defect_of_one_process_is_quoted_and_nobody_is_called_gone(tmp_path: Path) -> None:
    """gloo's errors are RuntimeErrors too: a process's own must not be taken for the loss of another."""
    done = misbehaving(tmp_path, "poison", rank=1, step=1)
    assert done.returncode != 0
    assert any("Process 1 stopped with RuntimeError: a defect of one process" in line for line in sentences(done))
    assert not any("gone without a word" in line for line in sentences(done))


@pytest.mark.parametrize(
    "setting", [pytest.param("student.lr=fast", marks=pytest.mark.slow), "prompts.path=nowhere.txt"]
)
def test_an_error_of_all_processes_is_told_once(setting: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    done = start(2, "-m", "fewstep", *train(tmp_path), setting)
    assert len(sentences(done)) == 1 and setting.partition("=")[2] in sentences(done)[0]
    assert "fewstep/cli/main.py" not in done.stderr  # the tracebacks are the launcher's own
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # three launches; the way of one process is a test of the fast tier
@pytest.mark.parametrize("action", ["terminate", "preempt"])
def test_a_signal_to_one_process_saves_and_ends_all_with_0_and_resume_goes_on(action: str, tmp_path: Path) -> None:
    done = misbehaving(tmp_path, action, rank=1, step=1)
    assert done.returncode == 0, done.stderr
    saved = checkpoints(tmp_path / "run" / "checkpoints")[-1].name
    assert saved == "step-00000003"  # it came in the second step; the third told all processes
    again = start(2, "-m", "fewstep", *train(tmp_path, "--resume"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("The run is in ") == 1  # by one process
    run(recipe(tmp_path, *SETTINGS), tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_of_one_process_keeps_the_earlier_checkpoint_and_is_told_once(tmp_path: Path) -> None:
    done = misbehaving(tmp_path, "full-disk", "checkpoint.every=1", rank=1, step=2)
    assert done.returncode != 0
    assert len(sentences(done)) == 1
    assert "step-00000004 could not be written" in sentences(done)[0]
    assert "No space left on device" in sentences(done)[0]
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000002"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".saving-*"))
