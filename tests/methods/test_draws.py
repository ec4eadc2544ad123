import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.core.schedules import GeometricLength, RandomLengthSchedule
from fewstep.methods.draws import Draws, Streams
from fewstep.methods.terms import CfgAugmentation, DistributionMatching, Terms

TERMS = Terms(ca=CfgAugmentation(scale=2.0), dm=DistributionMatching())


def drawn(
    positions: range,
    *,
    step: int = 0,
    seed: int = 0,
    concurrent: range = range(8),
    schedule: RandomLengthSchedule | None = None,
    simulation: int | None = None,
    stratified_over: int | None = None,
    own_anchors: tuple[str, ...] = (),
    first_anchor: int = 0,
    renoises: bool = False,
) -> Draws:
    return Draws.for_step(
        Streams(seed),
        step,
        schedule=schedule or RandomLengthSchedule(),
        latent_shape=(2, 3),
        positions=positions,
        concurrent=concurrent,
        terms=TERMS,
        simulation=simulation,
        stratified_over=stratified_over,
        own_anchors=own_anchors,
        first_anchor=first_anchor,
        renoises=renoises,
    )


# every draw asks a generator per sample and purpose: few cases say as much as many
FEW = settings(max_examples=20)


@FEW
@given(st.integers(0, 8), st.integers(0, 50))
def test_a_sample_draws_the_same_wherever_the_batch_is_split(cut: int, step: int) -> None:
    whole = drawn(range(8), step=step)
    for part in (range(cut), range(cut, 8)):
        if not part:
            continue
        split, rows = drawn(part, step=step), slice(part.start, part.stop)
        assert torch.equal(split.initial_noise, whole.initial_noise[rows])
        assert torch.equal(split.inner_u, whole.inner_u[rows])
        assert split.anchor == whole.anchor[rows]
        assert torch.equal(split.terms["dm"].probe_noise, whole.terms["dm"].probe_noise[rows])
        assert torch.equal(split.terms["ca"].probe_u, whole.terms["ca"].probe_u[rows])


@FEW
@given(st.integers(0, 200))
def test_every_process_makes_the_same_number_of_calls(step: int) -> None:
    parts = [drawn(range(2 * rank, 2 * rank + 2), step=step) for rank in range(4)]
    assert {part.num_simulation_calls for part in parts} == {max(i for part in parts for i in part.anchor)}
    assert len({part.num_anchors for part in parts}) == 1


def test_schedule_lengths_cover_their_whole_range_evenly() -> None:
    lengths = Counter(Streams(0).integer("num_anchors", step, low=1, high=28) for step in range(1500))
    assert set(lengths) == set(range(1, 29))
    assert max(lengths.values()) < 2 * 1500 / 28


@pytest.mark.parametrize("stratified_over", [None, 8])
def test_anchors_may_begin_at_the_second_and_nothing_else_is_drawn_anew(stratified_over: int | None) -> None:
    schedule = RandomLengthSchedule(min_steps=2, max_steps=4)
    found = Counter[int]()
    for step in range(60):
        shape: dict[str, Any] = {"step": step, "schedule": schedule, "stratified_over": stratified_over}
        as_before, later = drawn(range(8), **shape), drawn(range(8), **shape, first_anchor=1, own_anchors=("dm",))
        assert all(1 <= i < later.num_anchors for i in (*later.anchor, *later.term_anchors["dm"]))
        assert later.num_anchors == as_before.num_anchors and later.num_simulation_calls == max(later.anchor)
        for name in ("initial_noise", "inner_u", "denoising_u", "denoising_noise"):
            assert torch.equal(getattr(later, name), getattr(as_before, name))
        assert torch.equal(later.terms["dm"].probe_u, as_before.terms["dm"].probe_u)
        found += Counter(later.anchor if later.num_anchors == 4 else ())
    assert set(found) == {1, 2, 3} and max(found.values()) < 2 * found.total() / 3


def test_anchors_are_those_of_the_schedule() -> None:
    for step in range(20):
        of_step = drawn(range(8), step=step)
        assert all(0 <= index < of_step.num_anchors for index in of_step.anchor)


def test_another_seed_draws_other_schedule_lengths() -> None:
    lengths = [[drawn(range(1), step=step, seed=seed).num_anchors for step in range(20)] for seed in (0, 1)]
    assert lengths[0] != lengths[1]


def test_purposes_and_steps_do_not_share_noise() -> None:
    first, second = drawn(range(8)), drawn(range(8), step=1)
    noises = [first.initial_noise, first.denoising_noise, first.terms["ca"].probe_noise, first.terms["dm"].probe_noise]
    noises.append(second.initial_noise)
    flat = torch.stack([noise.flatten() for noise in noises])
    correlation = torch.corrcoef(flat) - torch.eye(len(noises))
    assert correlation.abs().max() < 0.6  # 48 numbers each; equal streams would give 1


def test_noise_is_standard_normal_and_uniforms_stay_below_one() -> None:
    noise = Streams(0).normal("initial_noise", 0, range(64), (16, 8, 8))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    u = Streams(0).uniform("u", 0, range(1000), 10)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.02


def test_draws_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from fewstep.methods.draws import Streams; "
        "print(Streams(7).normal('x', 3, [5], (4,)).tolist(), Streams(7).integer('n', 2, low=1, high=28))"
    )
    # this process's own seed is random or 0
    environment = {"PYTHONHASHSEED": "1", **_ENV}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == (
        f"{Streams(7).normal('x', 3, [5], (4,)).tolist()} {Streams(7).integer('n', 2, low=1, high=28)}\n"
    )


def test_the_released_choices_draw_what_they_always_drew() -> None:
    """Recorded before lengths, anchors and simulations could be drawn in other ways."""
    recorded = {
        0: (1, (0, 0, 0, 0, 0, 0, 0, 0)),
        1: (5, (1, 2, 3, 1, 4, 0, 0, 1)),
        2: (21, (15, 2, 17, 2, 11, 15, 18, 1)),
        3: (25, (22, 2, 12, 8, 6, 24, 15, 16)),
    }
    for step, (num_anchors, anchor) in recorded.items():
        of_step = drawn(range(8), step=step)
        assert (of_step.num_anchors, of_step.anchor) == (num_anchors, anchor)


def test_geometric_lengths_are_drawn_as_often_as_their_law_says() -> None:
    schedule = RandomLengthSchedule(max_steps=4, length=GeometricLength(ratio=0.5))
    one = range(1)
    lengths = Counter(drawn(one, step=step, schedule=schedule, concurrent=one).num_anchors for step in range(400))
    expected = {1: 8 / 15, 2: 4 / 15, 3: 2 / 15, 4: 1 / 15}
    # 400 draws of a half: a standard deviation of 0.025
    assert {length: lengths[length] / 400 for length in lengths} == pytest.approx(expected, abs=0.1)


def test_every_sample_of_a_stratified_batch_stands_evenly_on_its_schedule() -> None:
    schedule = RandomLengthSchedule(min_steps=4, max_steps=4)
    rows = range(6)
    anchors = [
        drawn(rows, step=step, schedule=schedule, concurrent=rows, stratified_over=6).anchor for step in range(240)
    ]
    for of_sample in zip(*anchors, strict=True):
        taken = Counter(of_sample)
        # 240 draws of four: a standard deviation of 6.7
        assert {index: taken[index] for index in range(4)} == pytest.approx(dict.fromkeys(range(4), 60), abs=28)


@FEW
@given(st.integers(0, 8), st.integers(0, 50))
def test_stratified_anchors_are_the_same_wherever_the_batch_is_split(cut: int, step: int) -> None:
    whole = drawn(range(8), step=step, stratified_over=8)
    parts = [drawn(part, step=step, concurrent=part, stratified_over=8) for part in (range(cut), range(cut, 8)) if part]
    assert sum((part.anchor for part in parts), ()) == whole.anchor
    assert [part.num_simulation_calls for part in parts] == [max(part.anchor) for part in parts]


def test_stratified_batches_cost_nearly_the_same() -> None:
    schedule = RandomLengthSchedule(min_steps=28, max_steps=28)
    spreads = []
    for over in (None, 8):
        anchors = [drawn(range(8), step=step, schedule=schedule, stratified_over=over).anchor for step in range(60)]
        spreads.append(torch.tensor([sum(of_step) / 8 for of_step in anchors]).std())
    assert spreads[1] < spreads[0] / 2


def test_steps_of_one_simulation_share_it_and_nothing_else() -> None:
    first, second = (drawn(range(8), step=step, simulation=5, stratified_over=8) for step in (10, 11))
    assert first.anchor == second.anchor and first.num_simulation_calls == second.num_simulation_calls
    assert torch.equal(first.initial_noise, second.initial_noise) and torch.equal(first.inner_u, second.inner_u)
    assert not torch.equal(first.denoising_noise, second.denoising_noise)
    assert not torch.equal(first.terms["ca"].probe_noise, second.terms["ca"].probe_noise)


@FEW
@given(st.integers(1, 7), st.integers(0, 50), st.sampled_from([None, 8]))
def test_own_anchors_and_noise_of_steps_are_the_same_wherever_the_batch_is_split(
    cut: int, step: int, stratified_over: int | None
) -> None:
    own = {"own_anchors": ("ca", "dm"), "renoises": True, "stratified_over": stratified_over}
    whole = drawn(range(8), step=step, **own)
    for part in (range(cut), range(cut, 8)):
        split, rows = drawn(part, step=step, **own), slice(part.start, part.stop)
        assert split.term_anchors == {name: anchor[rows] for name, anchor in whole.term_anchors.items()}
        assert (split.step_noise is None) == (whole.num_anchors == 1)
        if split.step_noise is not None and whole.step_noise is not None:
            assert torch.equal(split.step_noise, whole.step_noise[rows])


def test_own_anchors_and_noise_of_steps_leave_every_other_draw() -> None:
    for step in range(1, 4):
        released, other = drawn(range(8), step=step), drawn(range(8), step=step, own_anchors=("dm",), renoises=True)
        assert (other.anchor, other.num_simulation_calls) == (released.anchor, released.num_simulation_calls)
        for name in ("initial_noise", "inner_u", "denoising_u", "denoising_noise"):
            assert torch.equal(getattr(other, name), getattr(released, name))
        assert other.term_anchors["dm"] != other.anchor
        assert other.step_noise is not None and other.step_noise.shape == (8, other.num_anchors - 1, 2, 3)


def test_steps_of_a_simulation_do_not_share_noise() -> None:
    noise = drawn(range(8), step=2, renoises=True).step_noise
    assert noise is not None
    flat = torch.cat([noise.transpose(0, 1).flatten(1), drawn(range(8), step=2).initial_noise.flatten()[None]])
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 0.6  # 48 numbers each; equal ones would give 1


def test_a_probe_that_is_the_query_draws_no_noise() -> None:
    terms = Terms(dm=DistributionMatching(probe_of="query"))
    of_step = Draws.for_step(
        Streams(0),
        0,
        schedule=RandomLengthSchedule(),
        latent_shape=(2,),
        positions=range(2),
        concurrent=range(2),
        terms=terms,
    )
    assert of_step.terms["dm"].probe_noise is None


_ENV = {"PYTHONPATH": ":".join(sys.path)}
