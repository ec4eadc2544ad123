"""Plans: real checkpoints without a download, settings that fit, and what to change when none do."""

import dataclasses

import pytest
import torch

from fewstep.config import load_recipe
from fewstep.errors import ConfigError
from fewstep.planning import activations
from fewstep.planning.activations import PlannedNetwork
from fewstep.planning.cost import forward_units
from fewstep.planning.exchange import Links
from fewstep.planning.memory import GIB, predict
from fewstep.planning.meta_networks import planned_adapter, shipped
from fewstep.planning.plan import Planner, Rates, given
from fewstep.planning.porting_matrix import PORTED
from tests.backbones.families import REAL_CONFIGURATIONS
from tools.pages.plans import HEADINGS, cell, filled

SLOW = {"sd35-large", "longcat-image", "flux1-dev", "sdxl", "sd35-medium", "sd15"}


def marked(name: str) -> object:
    return pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.fixture(scope="module")
def sana() -> Planner:
    return Planner("sana-600m")


@pytest.fixture(scope="module")
def factors() -> Planner:
    return Planner("sana-600m", mode="lora")


@pytest.mark.parametrize("row", PORTED, ids=lambda row: row.name)
def test_shipped_configurations_are_the_real_ones(row: object) -> None:
    assert shipped(row.model) == REAL_CONFIGURATIONS[row.name].components  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [marked(row.name) for row in PORTED])
def test_work_of_a_forward_from_a_few_blocks_is_that_of_all(name: str) -> None:
    row = next(row for row in PORTED if row.name == name)
    adapter = planned_adapter(load_recipe(name).config.backbone)
    network = PlannedNetwork.trained(adapter, compute=torch.bfloat16)
    assert sum(parameter.numel() for parameter in network.network.parameters()) == row.parameters
    assert network.forward_flops() / 1e12 == pytest.approx(row.teraflop, abs=1e-3)


@pytest.mark.slow
def test_activations_from_a_few_blocks_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = planned_adapter(load_recipe("sana-600m").config.backbone)
    short, whole = (
        PlannedNetwork(adapter, adapter.network_without_weights().requires_grad_(True), torch.float32) for _ in range(2)
    )
    few = short.activations(True)
    monkeypatch.setattr(activations, "_SHORTEST_ROW", 1000)
    all_of_them = whole.activations(True)
    for name in ("forward", "kept", "backward"):
        assert getattr(few, name).at(3) == pytest.approx(getattr(all_of_them, name).at(3), rel=1e-3)


def test_a_plan_that_fits_needs_at_most_the_memory(sana: Planner) -> None:
    plan = sana.plan(gpus=8, memory=80 * GIB)
    assert plan.fits and plan.choice.needed <= 80 * GIB
    assert plan.choice.memory.peak == pytest.approx(sum(plan.choice.memory.parts.values()))
    assert plan.changes == ()


def test_the_chosen_settings_are_valid_overrides(sana: Planner) -> None:
    plan = sana.plan(gpus=2, memory=24 * GIB)
    overrides = [f"{name}={'null' if value is None else value}" for name, value in plan.choice.settings.items()]
    config = load_recipe("sana-600m", overrides).config
    assert config.model_dump() == plan.choice.config.model_dump()


def test_more_memory_never_costs_more_forwards(sana: Planner) -> None:
    units = [sana.plan(gpus=2, memory=size * GIB).choice.units for size in (24, 48, 80)]
    assert units == sorted(units, reverse=True)


@pytest.mark.slow
def test_factors_need_less_than_all_weights(sana: Planner, factors: Planner) -> None:
    parts = [planner.plan(gpus=1, memory=80 * GIB).choice.memory.parts for planner in (sana, factors)]
    for name in ("weights", "optimiser", "ema"):
        assert parts[1][name] < parts[0][name] / 2


def test_weights_and_optimiser_are_shared_among_the_processes(sana: Planner) -> None:
    one, eight = (sana.plan(gpus=gpus, memory=80 * GIB).choice.memory.parts for gpus in (1, 8))
    assert eight["optimiser"] == pytest.approx(one["optimiser"] / 8, rel=0.01)


def test_the_optimiser_of_all_weights_holds_two_moments_of_two_networks(sana: Planner) -> None:
    parts = sana.plan(gpus=1, memory=80 * GIB).choice.memory.parts
    assert parts["optimiser"] == 16 * 591_747_872
    assert parts["ema"] == 4 * 591_747_872


def test_when_nothing_fits_the_plan_says_what_would(sana: Planner) -> None:
    plan = sana.plan(gpus=1, memory=2.5 * GIB)
    assert not plan.fits
    assert plan.choice.needed > 2.5 * GIB
    assert "GiB on each device" in plan.changes[0] and len(plan.changes) > 1


def test_settings_that_were_given_are_kept() -> None:
    assert given(["memory.microbatch=2", "student.lr=1e-4"]) == {"memory.microbatch"}
    assert given(["memory.offload={teacher: true}"]) == {"memory.offload.teacher", "memory.offload.trained"}
    plan = Planner("sana-600m", ["memory.microbatch=2"]).plan(gpus=8, memory=80 * GIB)
    assert plan.choice.config.memory.microbatch == 2


def test_hours_and_price_follow_speed_and_price(sana: Planner) -> None:
    slow, fast = (
        sana.plan(gpus=8, memory=80 * GIB, rates=Rates(teraflops=speed, utilisation=0.5, price=3.0))
        for speed in (100.0, 200.0)
    )
    assert slow.hours == pytest.approx(2 * fast.hours)
    assert slow.price == pytest.approx(slow.hours * 8 * 3.0)
    config = slow.choice.config
    assert slow.flops_per_step == slow.choice.units * config.batch / config.student.every * sana.roles.flops
    steps = config.budget.student_updates * config.student.every
    assert slow.hours == pytest.approx(slow.flops_per_step * steps / (8 * 100e12 * 0.5) / 3600)


def test_with_a_network_the_layout_is_chosen_and_the_hours_are_those_of_its_updates(sana: Planner) -> None:
    plan = sana.plan(gpus=16, memory=80 * GIB, links=Links())
    assert plan.timing is not None and plan.fits
    assert plan.settings["parallel.shard"] * plan.settings["parallel.replicate"] == 16
    assert plan.choice.config.parallel.shard == plan.settings["parallel.shard"]
    assert plan.hours == pytest.approx(plan.timing.seconds * plan.choice.config.budget.student_updates / 3600)
    assert plan.hours > sana.plan(gpus=16, memory=80 * GIB).hours


def test_a_slower_network_never_ends_sooner(sana: Planner) -> None:
    hours = [sana.plan(gpus=32, memory=80 * GIB, links=Links(between=speed)).hours for speed in (4e11, 5e10, 1e9)]
    assert hours == sorted(hours)


def test_a_layout_that_was_given_is_kept_and_takes_no_less_than_the_chosen_one(sana: Planner) -> None:
    given_one = Planner("sana-600m", ["parallel.shard=16"])
    given_one.roles = sana.roles  # what is measured of the same networks
    kept, chosen = (each.plan(gpus=16, memory=80 * GIB, links=Links(between=1e9)).timing for each in (given_one, sana))
    assert kept is not None and chosen is not None
    assert (kept.shard, kept.replicate) == (16, 1)
    assert kept.seconds >= chosen.seconds


def test_little_memory_cuts_the_weights_up_however_slow_the_network(sana: Planner) -> None:
    wide, tight = (sana.plan(gpus=8, memory=size * GIB, links=Links(within=1e9)).timing for size in (80, 16))
    assert wide is not None and tight is not None
    assert wide.shard < tight.shard


@pytest.mark.parametrize("overrides", [["parallel.shard=3"], ["parallel.shard=4", "parallel.replicate=4"]])
def test_a_layout_that_is_not_the_number_of_devices_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"parallel.shard is .* but --gpus is 8; shard times replicate"):
        Planner("sana-600m", overrides).plan(gpus=8, memory=80 * GIB, links=Links())


def test_a_batch_that_is_not_split_keeps_its_anchor_graph() -> None:
    config = load_recipe("sd3-medium", ["memory.microbatch=16"]).config
    assert forward_units(config, rounds=1) == 36.5
    assert forward_units(config, rounds=2) == forward_units(config) == 37.5


def test_a_health_probe_needs_no_more_memory_than_the_step_it_stands_between(sana: Planner) -> None:
    overrides = (
        ("sana-600m", ["memory.microbatch=4"]),
        ("sana-600m", ["memory.microbatch=4", "health={probe: {every: 9}}"]),
    )
    without, probed = (predict(load_recipe(*each).config, sana.roles, processes=8) for each in overrides)
    assert without == probed


def test_a_cell_says_what_does_not_fit(sana: Planner) -> None:
    plan = sana.plan(gpus=8, memory=80 * GIB)
    assert cell(plan).startswith(f"{plan.choice.memory.peak / GIB:.1f} GiB, ")
    assert cell(dataclasses.replace(plan, fits=False)) == f"no: {plan.choice.needed / GIB:.0f} GiB"


def test_the_table_goes_between_its_marks() -> None:
    page = "a\n<!-- table: plans -->\nold\n<!-- end -->\nb\n<!-- end -->\n"
    assert filled(page, "new") == "a\n<!-- table: plans -->\nnew\n<!-- end -->\nb\n<!-- end -->\n"
    assert HEADINGS[-1] == "80 GiB"
