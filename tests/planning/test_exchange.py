"""Seconds of an update on many devices: hand-computed exchanges, calls in step, and what never gets better or worse."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.config import load_recipe
from fewstep.planning.cost import units_by_part
from fewstep.planning.exchange import Links, Timing, cut_up, passes, simulated, summed, timing
from fewstep.planning.planned_roles import PlannedRoles
from tests.planning.real_steps import adapter_of, config_of

PLAIN = Links(node=8, within=100e9, between=80e9, reached=1.0, hop=0.0, overlap=0.0)
SIZES = st.floats(min_value=1e3, max_value=1e12)
POWERS = st.sampled_from([1, 2, 4, 8, 16, 64, 512])


@pytest.mark.parametrize(
    ("shard", "seconds"),
    [
        (1, 0.0),
        # seven eighths of 8 GB at 100 GB/s
        (8, 0.07),
        # fifteen sixteenths of it over the slower link
        (16, 0.09375),
    ],
)
def test_cut_up_weights_travel_once_around_the_ring(shard: int, seconds: float) -> None:
    assert cut_up(8e9, shard, groups=5, links=PLAIN) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("shard", "copies", "seconds"),
    [
        (8, 1, 0.0),
        # two copies in one machine: 2 (1/2) 16 GB / 2 at 100 GB/s
        (2, 2, 0.08),
        # two machines that exchange all 16 GB of their eight parts once each way, at 80 GB/s
        (8, 2, 0.2),
        # the same for one whole copy on each device: one ring goes through all
        (1, 16, 2 * 15 / 16 * 0.2),
    ],
)
def test_gradients_are_summed_over_the_copies(shard: int, copies: int, seconds: float) -> None:
    assert summed(16e9, shard, copies, groups=5, links=PLAIN) == pytest.approx(seconds)


def test_every_group_pays_for_the_way_from_process_to_process() -> None:
    slow = replace(PLAIN, hop=1e-3)
    assert cut_up(0.0, 4, groups=3, links=slow) == pytest.approx(9e-3)
    assert summed(0.0, 4, 3, groups=2, links=slow) == pytest.approx(8e-3)


@pytest.mark.parametrize(
    ("levels", "rows", "processes", "calls", "samples"),
    [
        # anchors 0..3 alike: 0.75, 0.5 and 0.25 go on, and one call at the anchor
        ([1.0, 0.75, 0.5, 0.25], 1, 1, 2.5, 2.5),
        # one of two processes goes on with chance 3/4
        ([1.0, 0.5], 1, 2, 1.75, 1.75),
        # of two rows of one process: some go on with chance 3/4, one on average
        ([1.0, 0.5], 2, 1, 1.75, 3.0),
        ([1.0, 0.75, 0.5, 0.25], 1, 512, 4.0, 4.0),
    ],
)
def test_calls_are_in_step_with_the_process_that_has_most_rows(
    levels: list[float], rows: int, processes: int, calls: float, samples: float
) -> None:
    fixed = f"schedule={{kind: fixed, levels: {levels}}}"
    config = load_recipe("sd3-medium", [fixed, "student.every=1"]).config
    assert simulated(config, rows=rows, processes=processes) == pytest.approx((calls, samples), abs=1e-6)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["schedule.length={law: geometric, ratio: 0.9}"],
        ["schedule.min_steps=2", "terms.dp={}"],
        ["fake_score.target=final"],
        ["simulation.anchors=own"],
        ["draw.reuse_trajectory=true", "student.every=5"],
    ],
)
def test_who_waits_for_nobody_simulates_what_the_cost_counts(overrides: list[str]) -> None:
    config = load_recipe("sd3-medium", overrides).config
    _, samples = simulated(config, rows=1, processes=1)
    assert samples == pytest.approx(units_by_part(config)["simulation"])


def test_overlap_hides_a_share_of_the_shorter() -> None:
    assert Timing(8, 1, compute=2.0, exchange=1.0, overlap=0.8).seconds == pytest.approx(2.2)
    assert Timing(8, 1, compute=1.0, exchange=2.0, overlap=0.8).seconds == pytest.approx(2.2)


def test_passes_of_a_round_are_those_of_the_method() -> None:
    config = load_recipe("sd3-medium").config
    # the simulation's, then cdm's forward; the backward of ca with dm belongs to the call at the anchor
    assert passes(config, 29.0, 1) == {"student": (30.0, 2), "fake_score": (4, 2), "teacher": (2, 0)}
    dropped = load_recipe("sd3-medium", ["memory.keep_anchor_graph=false"]).config
    assert passes(dropped, 29.0, 1)["student"] == (31.0, 2)
    single = load_recipe("sd3-medium", ["memory.batch_frozen_calls=false"]).config
    assert passes(single, 29.0, 1)["teacher"] == (4, 0)
    assert passes(single, 29.0, 1)["fake_score"] == (4, 2)


@given(size=SIZES, shard=POWERS, copies=POWERS, faster=st.floats(min_value=1.0, max_value=100.0))
def test_faster_links_never_take_longer(size: float, shard: int, copies: int, faster: float) -> None:
    fast = replace(PLAIN, within=faster * PLAIN.within, between=faster * PLAIN.between)
    for links, other in ((fast, PLAIN), (replace(PLAIN, between=fast.between), PLAIN)):
        assert cut_up(size, shard, groups=1, links=links) <= cut_up(size, shard, groups=1, links=other)
        assert summed(size, shard, copies, groups=1, links=links) <= summed(size, shard, copies, groups=1, links=other)


@settings(deadline=None)
@given(rows=st.integers(1, 8), processes=POWERS)
def test_more_processes_never_wait_for_less(rows: int, processes: int) -> None:
    config = load_recipe("d-dmd").config
    fewer, more = (simulated(config, rows=rows, processes=count) for count in (processes, 2 * processes))
    assert all(a <= b + 1e-9 for a, b in zip(fewer, more, strict=True))
    assert more[1] <= config.student.every * 4 * rows + 1e-9


@pytest.fixture(scope="module")
def roles() -> PlannedRoles:
    config = config_of()
    return PlannedRoles(config, adapter_of(config, layers=2, heads=2))


def test_one_process_exchanges_nothing_and_computes_its_units(roles: PlannedRoles) -> None:
    config = config_of("health=null")
    alone = timing(config, roles, processes=1, speed=1e12, links=PLAIN)
    units = sum(units_by_part(config).values())
    assert (alone.shard, alone.replicate, alone.exchange) == (1, 1, 0.0)
    # the rows of one process do not wait for each other: those that are done leave
    assert alone.compute == pytest.approx(units * config.batch * roles.flops / 1e12)


def test_more_devices_compute_less_until_each_has_one_sample(roles: PlannedRoles) -> None:
    config = config_of("batch=16")
    took = [timing(config, roles, processes=count, speed=1e12, links=PLAIN).compute for count in (1, 2, 4, 8, 16, 32)]
    assert took[:5] == sorted(took[:5], reverse=True)
    # no device is left without a row, so more of them only wait
    assert took[5] >= took[4]
