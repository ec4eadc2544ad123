"""Runs with the switches of the published code: each trains, and no split of the batch changes it."""

from pathlib import Path

import pytest

from fewstep.export.export import export
from fewstep.sampling import load_model
from tests.training.test_run import assert_same_state, metrics
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

OWN, RENOISE = "simulation.anchors=own", "simulation.step=renoise"
REUSE = "draw.reuse_trajectory=true"
GROUP = "terms.dm.normalise_over=2"
DP = ("terms.dp={steps: 2}", "schedule.min_steps=2")


@pytest.mark.parametrize(
    "switches",
    [
        ("terms.dm.probe_of=leaving", "terms.cdm.probe_of=entering"),
        ("terms.ca.probe_of=final",),
        ("terms.ca.probe_of=query", "terms.cdm.probe_of=query"),
        ("terms.cdm.query={at: fresh_noise, of: leaving}",),
        ("terms.cdm.query={at: off_trajectory, of: last_anchor}",),
        ("fake_score.target=entering",),
        (OWN, "draw.anchors=stratified"),
        (RENOISE,),
        ("terms.cdm.warmup=3", "terms.ca.renormalise=token"),
        DP,
        (GROUP,),
    ],
    ids=lambda switches: switches[0],
)
def test_a_recipe_with_a_switch_of_the_published_code_trains(switches: tuple[str, ...], tmp_path: Path) -> None:
    folder = run(recipe(tmp_path, *switches, "budget.student_updates=2"), tmp_path / "run")
    steps = metrics(folder.path)
    assert len(steps) == 4 and {"loss/ca", "loss/dm", "loss/cdm", "loss/fake_score"} <= steps[-1].keys()


@pytest.mark.parametrize(
    "switches", [(OWN,), (OWN, REUSE), (RENOISE,), (OWN, RENOISE), (*DP, REUSE), (GROUP,)], ids=" ".join
)
def test_splitting_the_batch_gives_the_losses_of_the_whole(switches: tuple[str, ...], tmp_path: Path) -> None:
    two = (*switches, "budget.student_updates=2")
    run(recipe(tmp_path, *two), tmp_path / "whole")
    run(recipe(tmp_path, *two, "memory.microbatch=3"), tmp_path / "split")
    for ours, theirs in zip(metrics(tmp_path / "split"), metrics(tmp_path / "whole"), strict=True):
        assert {k: pytest.approx(v, rel=1e-4) for k, v in theirs.items()} == ours


def test_a_run_with_own_anchors_and_re_noising_stopped_between_steps_goes_on_bitwise(tmp_path: Path) -> None:
    made = recipe(tmp_path, OWN, RENOISE, REUSE, "budget.student_updates=2")
    run(made, tmp_path / "whole")
    run_stopped_after(made, tmp_path / "stopped", steps=1)
    run(made, tmp_path / "stopped", resume=True)
    assert_same_state(saved_state(tmp_path / "stopped"), saved_state(tmp_path / "whole"))


def test_a_student_that_re_noised_in_training_re_noises_in_its_sheets_and_as_a_folder(tmp_path: Path) -> None:
    sheets = ("budget.student_updates=1", "report.sheet_every=1", "report.sheet_prompts=2", "student.lr=1e-9")
    drawn = {}
    for step in ("euler", "renoise"):
        folder = run(recipe(tmp_path, *sheets, f"simulation.step={step}"), tmp_path / step)
        student = export(folder.path, tmp_path / f"student-{step}")
        latents = load_model(student.folder, "cpu").latents(["a red cat"], [0])
        drawn[step] = ((folder.sheets / "update-000001.png").read_bytes(), latents)
    assert drawn["euler"][0] != drawn["renoise"][0]
    assert not drawn["euler"][1].allclose(drawn["renoise"][1], atol=1e-2)
