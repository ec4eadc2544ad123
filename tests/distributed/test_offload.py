"""Weights that lie in the memory of the CPU while a GPU computes; on a CPU both are the same place."""

from pathlib import Path

import pytest
import torch

from tests.distributed.scenarios import COMMON, MODES
from tests.distributed.test_spread import assert_same_run
from tests.training.tiny_run import recipe, run

PLACES = ("{teacher: true}", "{trained: true}", "{teacher: true, trained: true}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["full", "lora", "lora-student"])
@pytest.mark.parametrize("place", PLACES)
def test_offloaded_weights_compute_the_same_run(mode: str, place: str, tmp_path: Path) -> None:
    on_gpu = recipe(tmp_path, *COMMON, *MODES[mode], "parallel.device=cuda")
    run(on_gpu, tmp_path / "resident")
    offloaded = recipe(tmp_path, *COMMON, *MODES[mode], "parallel.device=cuda", f"memory.offload={place}")
    run(offloaded, tmp_path / "offloaded")
    assert_same_run(tmp_path / "offloaded", tmp_path / "resident")
