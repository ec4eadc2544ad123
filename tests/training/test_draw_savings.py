"""Savings that change the draw: what they share between steps, and that no split and no stop changes them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.roles.role import Role
from fewstep.training.trainer import StepReport, Trainer
from tests.training.test_run import assert_same_state, metrics
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

REUSE = "draw.reuse_trajectory=true"
STRATIFIED = "draw.anchors=stratified"
SHORT = "schedule.length={law: geometric, ratio: 0.7}"
THREE = "student.every=3"


# the step that simulates for the others, and one that uses what it simulated
@pytest.mark.parametrize(("stop_at", "place"), [(1, "memory.microbatch=null"), (5, "memory.microbatch=2")])
def test_a_run_stopped_between_steps_that_share_a_simulation_goes_on_bitwise(
    stop_at: int, place: str, tmp_path: Path
) -> None:
    made = recipe(tmp_path, REUSE, STRATIFIED, SHORT, THREE, place, "budget.student_updates=2")
    run(made, tmp_path / "whole")
    run_stopped_after(made, tmp_path / "stopped", steps=stop_at)
    run(made, tmp_path / "stopped", resume=True)
    assert_same_state(saved_state(tmp_path / "stopped"), saved_state(tmp_path / "whole"))
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("draws", [(REUSE,), (STRATIFIED,), (SHORT,)], ids=["reuse", "stratified", "short"])
def test_splitting_the_batch_gives_the_losses_of_the_whole(draws: tuple[str, ...], tmp_path: Path) -> None:
    run(recipe(tmp_path, *draws), tmp_path / "whole")
    run(recipe(tmp_path, *draws, "memory.microbatch=3"), tmp_path / "split")
    for ours, theirs in zip(metrics(tmp_path / "split"), metrics(tmp_path / "whole"), strict=True):
        assert {k: pytest.approx(v, rel=1e-4) for k, v in theirs.items()} == ours


def test_the_student_draws_once_for_all_steps_up_to_its_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = calls_of_steps(monkeypatch)
    run(recipe(tmp_path, REUSE, THREE, "budget.student_updates=2"), tmp_path / "run")
    simulating, silent, updating, *_ = (of_step["student"] for of_step in asked)
    # the gradient forward at the anchor is the simulation's last call; cdm asks once more
    assert simulating >= 1 and silent == 0 and updating == 1


def test_the_fake_score_sees_the_shared_samples_under_fresh_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = calls_of_steps(monkeypatch)
    run(recipe(tmp_path, REUSE, THREE, "budget.student_updates=2"), tmp_path / "run")
    prompts = [of_step["prompts"] for of_step in asked]
    assert torch.equal(prompts[0], prompts[1]) and torch.equal(prompts[0], prompts[2])
    assert not torch.equal(prompts[2], prompts[3])
    levels = torch.stack([of_step["levels"] for of_step in asked])
    assert len(levels.unique()) == levels.numel()


def test_a_simulation_for_every_step_is_the_same_with_one_fake_update_per_student_update(tmp_path: Path) -> None:
    once = ("student.every=1", "budget.student_updates=2")
    run(recipe(tmp_path, *once), tmp_path / "plain")
    run(recipe(tmp_path, *once, REUSE), tmp_path / "reused")
    assert_same_state(saved_state(tmp_path / "reused"), saved_state(tmp_path / "plain"))


def calls_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Per step: calls of the student, and levels and prompts of the fake score's first call."""
    steps: list[dict[str, Any]] = []
    step, call = Trainer.run_step, Role.__call__
    role_of: dict[int, str] = {}

    def watched(trainer: Trainer, **asked: bool) -> StepReport:
        role_of.update({id(trainer.roles.student): "student", id(trainer.roles.fake_score): "fake_score"})
        steps.append({"student": 0})
        return step(trainer, **asked)

    def counted(role: Role, point: NoisyLatent, cond: Conditioning) -> torch.Tensor:
        name = role_of.get(id(role))
        if name == "student":
            steps[-1]["student"] += 1
        if name == "fake_score" and "levels" not in steps[-1]:
            steps[-1] |= {"levels": point.sigma.clone(), "prompts": cond.tensors["pooled_prompt_embeds"].clone()}
        return call(role, point, cond)

    monkeypatch.setattr(Trainer, "run_step", watched)
    monkeypatch.setattr(Role, "__call__", counted)
    return steps
