"""docs/equations.md and the code name the same formulas."""

import importlib
import re
from pathlib import Path

import pytest

from fewstep.config import load_recipe

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| `(fewstep\.[\w.]+)` \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "equations.md").read_text())

_, KNOBS, OF_DP_DMD = (ROOT / "docs" / "equations.md").read_text().split("| override here |\n|---|---|---|\n")
KNOBS, OF_DP_DMD = (table.partition("\n\n")[0] for table in (KNOBS, OF_DP_DMD))
TABLES = [*(("sd3-medium", row) for row in KNOBS.splitlines()), *(("dp-dmd", row) for row in OF_DP_DMD.splitlines())]
PUBLISHED = {
    *("student_xt_mode", "student_x0_base", "student_sigma_method"),
    *("trajectory_xt", "trajectory_eps", "trajectory_eps_last", "fresh", "fresh_independent", "shared", "student_pred"),
    *("teacher_xt_mode", "teacher_x0_base", "teacher_sigma_method", "logit_mean", "logit_std"),
    *("share_latent_indices", "deterministic", "x0_source", "sigma_sampling_method", "ema_from_student"),
    *("random_sigma_schedule", "custom_sigmas", "update_ratio", "enabled", "weight", "guidance_scale", "norm_clip_min"),
    *("sigma_min", "sigma_max", "full_learning_rate", "warmup_steps", "lr_scheduler_type", "max_grad_norm"),
    *("ema_decay", "use_lora", "batch_size", "num_epochs", "save_freq", "eval_freq"),
}
"""Knobs of the published configuration that decide what a run computes, and values of those that have many."""


def tags(text: str) -> set[str]:
    return set(re.findall(r"\[eq:([a-z0-9-]+)\]", text))


def test_every_tag_in_the_code_has_a_row_and_every_row_a_tag() -> None:
    in_code = set().union(*(tags(path.read_text()) for path in (ROOT / "src").rglob("*.py")))
    assert in_code == {row[0] for row in ROWS}


@pytest.mark.parametrize(("tag", "function", "test_file", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_the_row_names_a_function_with_the_tag_and_a_test(tag: str, function: str, test_file: str, test: str) -> None:
    module, name = function.rsplit(".", 1)
    assert tag in tags(getattr(importlib.import_module(module), name).__doc__)
    assert f"def {test}(" in (ROOT / test_file).read_text()


@pytest.mark.parametrize(("recipe", "row"), TABLES, ids=lambda value: "|".join(value.split("|")[1:3]) or value)
def test_a_published_knob_names_overrides_that_a_recipe_takes(recipe: str, row: str) -> None:
    overrides = re.findall(r"`([^`]+)`", row.split("|")[3])
    assert overrides
    for override in overrides:
        load_recipe(recipe, [override])


def test_every_knob_that_decides_what_a_run_computes_has_a_row() -> None:
    named = {
        name for row in KNOBS.splitlines() for name in re.findall(r"`([a-z0-9_]+)`", "|".join(row.split("|")[1:3]))
    }
    assert named >= PUBLISHED


def test_every_choice_of_dp_dmd_has_a_row() -> None:
    knobs = ("k_anchor", "teacher_infer_steps", "div_weight", "teacher_guidance_scale", "per_train_fake_num")
    assert all(f"`{knob}`" in OF_DP_DMD for knob in knobs)
