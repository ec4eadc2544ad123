"""An evaluation under torchrun gives what one process gives, and so does one that was killed on the way."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.tiny_models import write_embedded_student

pytestmark = pytest.mark.slow


def command(student: Path, output: Path, *, processes: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    arguments = ["--model", str(student), "--teacher", "fewstep:digits,steps=4", "--output", str(output)]
    chosen = ["--metrics", "digits", "fid", "--set", "fid.extractor=digits", "--num-prompts", "12", "--batch", "3"]
    return [sys.executable, *launcher, "-m", "fewstep", "evaluate", *arguments, *chosen, "--device", "cpu"]


def evaluate(student: Path, output: Path, *, processes: int = 1) -> Any:
    done = subprocess.run(command(student, output, processes=processes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((output / "scores.json").read_text())


def differing(one: Path, other: Path) -> list[str]:
    """Pictures of one evaluation that are not in the other, byte for byte."""
    names = [path.relative_to(one) for path in one.rglob("*.png")]
    assert len(names) > 24
    return [str(name) for name in names if (one / name).read_bytes() != (other / name).read_bytes()]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedded_student(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def alone(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("evaluations") / "alone"
    evaluate(student, output)
    return output


def test_two_processes_draw_and_score_what_one_does(student: Path, alone: Path, tmp_path: Path) -> None:
    shared = evaluate(student, tmp_path / "shared", processes=2)
    assert shared == json.loads((alone / "scores.json").read_text())
    assert differing(alone, tmp_path / "shared") == []
    parts = {path.name for path in (tmp_path / "shared").rglob("part-*.jsonl")}
    assert parts == {"part-0.jsonl", "part-1.jsonl"}


def test_a_killed_evaluation_goes_on_to_the_same_end(student: Path, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    process = subprocess.Popen(command(student, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(output.rglob("*.png"))) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (output / "scores.json").exists()
    assert evaluate(student, output) == json.loads((alone / "scores.json").read_text())
    assert differing(alone, output) == []
