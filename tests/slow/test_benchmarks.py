"""The benchmarks run, and what they measure agrees with what the documents say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(module: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_the_savings_cost_the_units_of_the_formulas_and_give_the_same_gradient() -> None:
    found = measured("savings", "--updates", "6")
    # the benchmark itself compares the units with the formulas, update by update; here the mean over the draws
    assert found["unit_ratio"] == pytest.approx(found["unit_ratio_expected"], abs=0.1)
    assert found["gradient_relative_difference"] < 1e-4
    assert found["time_ratio_median_of_pairs"] < 0.9


def test_the_trainer_adds_little_to_networks_and_optimisers() -> None:
    assert measured("overhead", "--updates", "6")["overhead_share"] < 0.15
