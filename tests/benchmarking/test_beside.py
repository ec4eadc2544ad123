"""Two trainers beside each other differ by what the setting changes, and by nothing else."""

import pytest
from benchmarks.beside import beside
from benchmarks.networks import Size

SMALL = Size(layers=2, heads=1, latent_side=4, text_width=64)
QUICK = ["batch=2", "backbone.max_sequence_length=3", "student.warmup=0", "fake_score.warmup=0", "schedule.max_steps=2"]


@pytest.mark.parametrize(
    ("setting", "alike"), [("memory.gradient_checkpointing=false", True), ("student.lr=1e-2", False)]
)
def test_weights_are_apart_where_the_setting_changes_the_update(setting: str, alike: bool) -> None:
    found = beside(SMALL, QUICK, [setting], updates=1)
    assert (found["weights_relative_difference"]["student"] < 1e-3) == alike
    assert len(found["cpu_seconds"]["plain"]) == len(found["cpu_seconds"]["changed"]) == 1
