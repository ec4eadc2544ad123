"""Ctrl-C and SIGTERM during a training: the run is saved, the exit code says which it was, and --resume goes on."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint import FileSystemWriter

from fewstep.cli.main import execute
from fewstep.runs.checkpoint import verify_checkpoint
from fewstep.runs.places import checkpoints, completed_steps
from fewstep.training.trainer import StepReport, Trainer
from tests.training.test_run import assert_same_state, metrics
from tests.training.tiny_run import recipe, run, saved_state, write_inputs


def signal_after(step: int, number: signal.Signals, patch: pytest.MonkeyPatch) -> None:
    """Send this process a signal while it is at a step."""
    run_step = Trainer.run_step

    def signalled(trainer: Trainer, **asked: bool) -> StepReport:
        report = run_step(trainer, **asked)
        if trainer.step == step:
            os.kill(os.getpid(), number)
        return report

    patch.setattr(Trainer, "run_step", signalled)


def test_ctrl_c_ends_with_130_after_saving_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(recipe(tmp_path), tmp_path / "whole")
    command = ["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        signal_after(3, signal.SIGINT, patch)
        assert execute(command) == 130
    printed = capsys.readouterr()
    assert "Stopped at step 3 of 6 and saved; go on with --resume." in printed.err
    assert printed.err.endswith("fewstep: Interrupted.\n")
    assert "Traceback" not in printed.err
    assert "Next:" not in printed.out
    assert execute([*command, "--resume"]) == 0
    assert_same_state(saved_state(tmp_path / "run"), saved_state(tmp_path / "whole"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_sigterm_ends_with_0_and_the_printed_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path)
    folder = tmp_path / "a run"
    with monkeypatch.context() as patch:
        signal_after(3, signal.SIGTERM, patch)
        assert execute(["train", str(tmp_path / "tiny.yaml"), "student.lr=2e-3", "--output", str(folder)]) == 0
    said = capsys.readouterr().out.strip()
    before, _, command = said.partition(" Go on with it: fewstep ")
    assert before == f"The run in {folder} was asked to stop before its end."
    assert checkpoints(folder / "checkpoints")[-1].name == "step-00000003"
    assert execute(shlex.split(command)) == 0
    assert capsys.readouterr().out.startswith(f"The run is in {folder}. Next: fewstep export ")
    assert checkpoints(folder / "checkpoints")[-1].name == "step-00000006"


def test_a_second_ctrl_c_during_the_save_ends_with_130_and_says_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path)
    command = ["train", str(tmp_path / "tiny.yaml"), "checkpoint.every=1", "--output", str(tmp_path / "run")]
    write = FileSystemWriter.write_data

    def interrupted(writer: FileSystemWriter, *arguments: Any) -> Any:
        written = write(writer, *arguments)
        if "step-00000003" in str(writer.path):
            os.kill(os.getpid(), signal.SIGINT)
        return written

    with monkeypatch.context() as patch:
        signal_after(3, signal.SIGINT, patch)
        patch.setattr(FileSystemWriter, "write_data", interrupted)
        assert execute(command) == 130
    told = capsys.readouterr().err
    assert "Interrupted before the run was saved; its newest checkpoint, step-00000002, is whole." in told
    assert told.endswith("fewstep: Interrupted.\n")
    assert "Free some space" not in told and "Traceback" not in told
    verify_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert execute([*command, "--resume"]) == 0
    assert not list((tmp_path / "run" / "checkpoints").glob(".saving-*"))


SIGNALLED = """
import os, signal, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.{number})
            except BaseException:
                if not {swallowed}:
                    raise

sys.meta_path.insert(0, Hook())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
sys.argv = ["fewstep", "train", "digits", "--root", sys.argv[1]]
from fewstep.cli.main import run
run()
"""


ANSWERS = {
    "SIGTERM": (143, "fewstep: Ended by SIGTERM; nothing unfinished is left. Give the same command again.\n"),
    "SIGUSR1": (138, "fewstep: Ended by SIGUSR1; nothing unfinished is left. Give the same command again.\n"),
    "SIGINT": (130, "fewstep: Interrupted.\n"),
}
# each signal once and each moment once; the slow tier has the other pairs
EARLY = {("SIGTERM", "torch", True), ("SIGUSR1", "torch", False), ("SIGINT", "typer", False)}
MOMENTS = [
    pytest.param(number, *moment, marks=[] if (number, *moment) in EARLY else [pytest.mark.slow])
    for number in ANSWERS
    for moment in (("typer", False), ("torch", False), ("torch", True))
]


@pytest.mark.parametrize(("number", "module", "swallowed"), MOMENTS)
def test_a_signal_while_the_command_is_still_being_imported_is_answered(
    number: str, module: str, swallowed: bool, tmp_path: Path
) -> None:
    program = SIGNALLED.format(module=module, number=number, swallowed=swallowed)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    # a library may swallow what the signal raised; the command ends before it begins all the same
    assert (done.returncode, done.stderr) == ANSWERS[number]
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_trains_saves_when_it_is_interrupted(tmp_path: Path) -> None:
    recipe_path = write_inputs(tmp_path)
    settings = ["budget.student_updates=100", "checkpoint.every=null", "parallel.threads=1"]
    command = [sys.executable, "-m", "fewstep", "train", str(recipe_path), *settings, "--output", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = next(line for line in process.stderr if line.startswith("update "))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=300)
    assert first.startswith("update 10/100 ")
    assert process.returncode == 130, told
    assert "Traceback" not in told
    (saved,) = checkpoints(tmp_path / "run" / "checkpoints")
    verify_checkpoint(saved)
    assert 20 <= completed_steps(saved) == len(metrics(tmp_path / "run")) < 200
