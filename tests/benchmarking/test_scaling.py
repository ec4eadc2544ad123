"""The exponents are slopes, and one above proportion is told."""

import pytest
from benchmarks.bench_trainer import draw_with_lengths, random_trainer
from benchmarks.counting import Counter
from benchmarks.networks import Size
from benchmarks.scaling import LENGTH, ROLES, SETTINGS, Case, Cost, evenly, exponent, exponents, measure, too_fast

from fewstep.planning.exchange import passes


def cost_of(size: int, power: float) -> Cost:
    grown = size**power
    return Cost(seconds=1e-3 * grown, attention=0.0, units=size, working=1000 * size, exchanged=1.0)


def test_a_power_law_has_its_power_as_exponent() -> None:
    assert exponent([2, 4, 16], [5 * n**1.7 for n in (2, 4, 16)]) == pytest.approx(1.7)


def test_proportional_cost_is_not_told() -> None:
    costs = {size: cost_of(size, 1.1) for size in (8, 16, 32)}
    assert too_fast("batch", exponents("batch", costs)) == []


def test_superlinear_seconds_are_told() -> None:
    costs = {size: cost_of(size, 1.3) for size in (8, 16, 32)}
    assert too_fast("batch", exponents("batch", costs)) == ["seconds grow with batch to the power 1.30, above 1.25."]


def test_an_exponent_that_is_no_number_is_told() -> None:
    assert too_fast("batch", {"seconds": float("nan")}) == ["seconds grow with batch to the power nan, above 1.25."]


def test_one_update_is_measured_in_every_quantity() -> None:
    cost = measure(Case(layers=1, latent_side=4, batch=8), repeats=1)
    assert 0 < cost.attention < cost.seconds + cost.attention
    # anchors 0..7 in turn: 36 samples simulated twice, fake score 3 each, student 2 and 3, frozen calls 6
    assert cost.units == 2 * 36 + 2 * 3 * 8 + 2 * 8 + 3 * 8 + 6 * 8
    assert cost.working > 0
    assert cost.exchanged == 0


def test_of_several_processes_the_first_does_its_own_share() -> None:
    cost = measure(Case(layers=1, latent_side=4, batch=8, processes=2), repeats=1)
    assert cost.units == 2 * 36 + 2 * 3 * 8 + 2 * 8 + 3 * 8 + 6 * 8
    assert cost.exchanged > 0


@pytest.mark.parametrize("settings", [[], ["memory.keep_anchor_graph=false", "memory.batch_frozen_calls=false"]])
def test_the_trainer_makes_the_passes_that_a_plan_counts(settings: list[str]) -> None:
    size = Size(layers=1, heads=2, latent_side=4)
    with random_trainer(size, [*SETTINGS, *settings, f"batch={LENGTH}"], num_prompts=8) as trainer:
        trainer.draw = evenly(draw_with_lengths(trainer, [LENGTH]))
        networks = {role: getattr(trainer.roles, role).network for role in ROLES}
        counter = Counter(networks, trainer.adapter.block_classes)
        every = trainer.config.student.every
        for _ in range(every):
            trainer.run_step()
        taken = counter.taken()
    # every anchor from the first to the last is some sample's
    counted = passes(trainer.config, every * LENGTH, 1)
    assert {role: (calls["calls"], calls["backward_calls"]) for role, calls in taken.items()} == counted
