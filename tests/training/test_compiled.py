"""torch.compile of the blocks."""

import shutil
from pathlib import Path

import pytest

from tests.training.test_run import metrics
from tests.training.tiny_run import recipe, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
]


LORA = tuple(f"{role}.weights={{kind: lora, rank: 2}}" for role in ("student", "fake_score"))


MODE = ("memory.compiled=max-autotune-no-cudagraphs",)


@pytest.mark.parametrize("mode", [(), ("memory.gradient_checkpointing=true",), LORA, MODE, MODE + LORA])
def test_compiled_blocks_compute_the_same_run(mode: tuple[str, ...], tmp_path: Path) -> None:
    eager = [setting for setting in mode if setting not in MODE]
    run(recipe(tmp_path, "budget.student_updates=2", *eager), tmp_path / "plain")
    run(recipe(tmp_path, "budget.student_updates=2", "memory.compiled=true", *mode), tmp_path / "compiled")
    for ours, theirs in zip(metrics(tmp_path / "compiled"), metrics(tmp_path / "plain"), strict=True):
        assert {name: pytest.approx(value, rel=1e-3, abs=1e-8) for name, value in theirs.items()} == ours
