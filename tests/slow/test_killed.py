"""A run on two processes, killed again and again at moments nobody chose, ends as if nothing had happened.

FEWSTEP_TEST_KILLS=24 kills it that often.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fewstep.runs.checkpoint import verify_checkpoint
from fewstep.runs.places import checkpoints
from tests.distributed.conftest import start
from tests.distributed.test_spread import assert_same_run
from tests.training.tiny_run import write_inputs

KILLS = int(os.environ.get("FEWSTEP_TEST_KILLS", "6"))
SETTINGS = (
    f"budget.student_updates={3 * KILLS}",
    "checkpoint.every=1",
    "checkpoint.keep_last=3",
    "batch=2",
    "student.eps=1e-3",
    "fake_score.eps=1e-3",
)


def command(folder: Path, output: str) -> list[str]:
    arguments = ["train", str(folder / "tiny.yaml"), *SETTINGS, "--output", str(folder / output), "--resume"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*launcher, "-m", "fewstep", *arguments]


def progress(folder: Path) -> tuple[int, int]:
    """Newest published step, and unfinished saves that lie about."""
    published = checkpoints(folder / "checkpoints")
    left = list((folder / "checkpoints").glob(".saving-*")) if published else []
    return (int(published[-1].name.removeprefix("step-")) if published else 0), len(left)


def wait_for_training(job: subprocess.Popen[bytes], folder: Path, beyond: int) -> None:
    """Until the job has saved something new, so that a kill hits training and saving rather than the start."""
    deadline = time.monotonic() + 300
    while progress(folder)[0] <= beyond and job.poll() is None:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_killed_again_and_again_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    chance = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    kills = mid_save = 0
    while kills < KILLS:
        at = progress(tmp_path / "run")[0]
        job = subprocess.Popen(
            command(tmp_path, "run"), env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_training(job, tmp_path / "run", at)
        time.sleep(chance.uniform(0.0, 0.3))
        if job.poll() is not None:
            break
        os.killpg(job.pid, signal.SIGKILL)  # the launcher
        for worker in workers(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        job.wait()
        kills += 1
        mid_save += progress(tmp_path / "run")[1] > 0
        for checkpoint in checkpoints(tmp_path / "run" / "checkpoints"):
            verify_checkpoint(checkpoint)
    assert kills == KILLS, f"the run ended after {kills} kills; give it a larger budget"
    print(f"{kills} kills, {mid_save} of them during a save")
    assert subprocess.run(command(tmp_path, "run"), env=environment, check=False).returncode == 0
    whole = start(2, "-m", "fewstep", *command(tmp_path, "whole")[7:])
    assert whole.returncode == 0, whole.stderr
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def workers(folder: Path) -> list[int]:
    """Processes that train in ``folder``, wherever the launcher put them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if str(folder / "run").encode() in line:
            found.append(int(entry.parent.name))
    return found


def test_a_process_that_hangs_is_named_and_the_job_ends(tmp_path: Path) -> None:
    """SIGSTOP: it answers nothing, not even the request to end."""
    write_inputs(tmp_path)
    arguments = ["train", str(tmp_path / "tiny.yaml"), *SETTINGS, "parallel.timeout_minutes=0.2"]
    misbehaving = ["--shutdown-timeout=2", "-m", "tests.distributed.misbehave", "hang", "1", "2"]
    done = start(2, *misbehaving, *arguments, "--output", str(tmp_path / "run"))
    assert done.returncode != 0
    assert "fewstep: Process 1 is gone without a word (killed, out of memory, hanging, or its machine" in done.stderr
