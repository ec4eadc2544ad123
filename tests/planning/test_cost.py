"""The cost of a recipe is counted from its settings."""

import pytest

from fewstep.config import load_recipe
from fewstep.config.recipe_files import recipe_names
from fewstep.planning.cost import EIGHT_H100, Machine, forward_units, health_units, hours


@pytest.mark.parametrize(
    ("overrides", "units"),
    [
        ([], 36.5),
        (["memory.gradient_checkpointing=false"], 32.5),
        # the forward at the anchor is made again for the gradient
        (["memory.keep_anchor_graph=false"], 37.5),
        (["memory.microbatch=1"], 37.5),
        (["memory.microbatch=1", "memory.keep_anchor_graph=true"], 36.5),
        # ca shares dm's call at the anchor and costs the teacher's two; without dm that call is gone as well
        (["terms.ca=null"], 34.5),
        (["terms.ca=null", "terms.dm=null"], 29.5),
        (["schedule={kind: fixed, levels: [1.0, 0.75, 0.5, 0.25]}"], 26.0),
        (["student.every=1"], 24.75),
        # a guided detour, a plain call on it and a call with gradient
        (["terms.isg={}"], 43.5),
        # half an anchor more, five guided steps of the teacher and a call with gradient
        (["schedule.min_steps=2"], 37.0),
        (["schedule.min_steps=2", "terms.dp={}"], 52.0),
        (["schedule.min_steps=2", "terms.dp={steps: 3, guidance_scale: 1}"], 45.0),
        # a whole simulation and the call at the anchor
        (["fake_score.target=final"], 52.0),
        (["terms.dm.guidance_scale=2.0"], 37.5),
        # one simulation instead of two
        (["draw.reuse_trajectory=true"], 28.75),
        (["draw.reuse_trajectory=true", "student.every=5"], 40.75),
        # half the length, a little more than half the calls up to the anchor
        (["schedule.max_steps=14"], 29.5),
        (["schedule={kind: random_length, min_steps: 3, max_steps: 4, length: {ratio: 0.25}}"], 25.2),
        # one anchor before is kept on the way, as is what leaves the anchor
        (["fake_score.target=entering"], 36.5),
        (["terms.cdm.query={at: fresh_noise, of: leaving}", "terms.dm.probe_of=entering"], 36.5),
        (["terms.dm.probe_of=final"], 52.0),
        (["terms.dm.probe_of=query"], 36.5),
        # one simulation as released, one that goes all the way, and no forward shared with it or between ca and dm
        (["simulation.anchors=own"], 48.25),
        (["simulation.anchors=own", "draw.reuse_trajectory=true"], 40.5),
        (["simulation.step=renoise"], 36.5),
        # views cost nothing; 16 pictures of 4 calls every 50 updates, and once of 50 guided steps, over a batch of 128
        (["health={}"], 36.5),
        (["health=null"], 36.5),
        (["health={probe: {every: 50}}"], 36.5 + 16 * (4 / 50 + 2 * 50 / 2000) / 128),
        # the same calls on average, only more evenly
        (["draw.anchors=stratified"], 36.5),
    ],
)
def test_forwards_per_student_update(overrides: list[str], units: float) -> None:
    assert forward_units(load_recipe("sd3-medium", overrides).config) == pytest.approx(units)


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_health_probe_every_fifty_updates_costs_under_a_fiftieth(recipe: str) -> None:
    config = load_recipe(recipe, ["health={probe: {every: 50}}"]).config
    assert 0 < health_units(config) < 0.02 * forward_units(config)


def test_hours_are_forwards_times_work_over_speed() -> None:
    config = load_recipe("sd3-medium").config
    machine = Machine("one", devices=1, teraflops={"bf16": 100.0}, utilisation=0.5)
    expected = 36.5 * 2000 * 128 * 8.0 / 50.0 / 3600
    assert hours(config, teraflop_per_forward=8.0, machine=machine) == pytest.approx(expected)


def test_twice_the_devices_take_half_the_time() -> None:
    config = load_recipe("sd3-medium").config
    sixteen = Machine("16 x H100", 16, EIGHT_H100.teraflops, EIGHT_H100.utilisation)
    once, twice = (hours(config, teraflop_per_forward=1.0, machine=machine) for machine in (EIGHT_H100, sixteen))
    assert once == pytest.approx(2 * twice)


def test_full_precision_takes_as_much_longer_as_its_peak_is_lower() -> None:
    low, full = (load_recipe("sd3-medium", [f"precision.compute={name}"]).config for name in ("bf16", "fp32"))
    ratio = hours(full, teraflop_per_forward=1.0) / hours(low, teraflop_per_forward=1.0)
    assert ratio == pytest.approx(EIGHT_H100.teraflops["bf16"] / EIGHT_H100.teraflops["fp32"])
