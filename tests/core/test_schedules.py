import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.core.flow import time_shift
from fewstep.core.schedules import (
    FixedSchedule,
    GeometricLength,
    RandomLengthSchedule,
    UniformLevels,
    spread_anchors,
    with_final_zero,
)
from tests.golden import arrays, record


def shift3(level: torch.Tensor) -> torch.Tensor:
    return time_shift(level, 3.0)


@given(st.integers(1, 28), st.integers(0, 10_000))
def test_anchors_start_at_one_and_strictly_descend(length: int, seed: int) -> None:
    inner_u = torch.rand(4, length - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()
    sigmas = RandomLengthSchedule().sigmas(inner_u, shift3)
    assert sigmas.shape == (4, length)
    assert (sigmas[:, 0] == 1).all()
    # float32 draws of one sample may coincide; then the step between them has length 0 and moves nothing
    assert (sigmas.diff(dim=1) <= 0).all() and (sigmas[:, 1:] < 1).all()


def test_inner_anchors_stay_inside_their_law_before_the_shift() -> None:
    sigmas = RandomLengthSchedule(inner=UniformLevels(low=0.25, high=0.95)).sigmas(
        torch.rand(64, 27), lambda level: level
    )
    assert sigmas[:, 1:].min() >= 0.25 and sigmas[:, 1:].max() <= 0.95


def test_each_sample_has_its_own_inner_anchors() -> None:
    sigmas = RandomLengthSchedule().sigmas(torch.rand(2, 5), shift3)
    assert not torch.equal(sigmas[0], sigmas[1])


def test_the_fixed_grid_is_the_published_one_under_shift_three() -> None:
    sigmas = FixedSchedule().sigmas(torch.zeros(2, 3), shift3)
    torch.testing.assert_close(sigmas, torch.tensor([[1.0, 0.9, 0.75, 0.5]] * 2))


def test_the_published_random_schedule_is_reproduced() -> None:
    raw = torch.tensor(record("iter_default")["raw_sigmas"])
    inner_u = ((raw[1:] - 0.25) / 0.7)[None]
    sigmas = with_final_zero(RandomLengthSchedule().sigmas(inner_u.flip(1), shift3))
    torch.testing.assert_close(sigmas[0], torch.from_numpy(arrays("iter_default")["sched_sigmas"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ((), "must start at 1"),
        ((0.9, 0.5), "must start at 1"),
        ((1.0, 0.5, 0.5), "must strictly descend"),
        ((1.0, 0.0), "must strictly descend and stay above 0"),
    ],
)
def test_a_fixed_grid_that_is_no_schedule_is_refused(levels: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FixedSchedule(levels=levels)


def test_a_random_schedule_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="min_steps 5 and max_steps 3 must satisfy 1 <= min <= max"):
        RandomLengthSchedule(min_steps=5, max_steps=3)
    with pytest.raises(ValueError, match=r"inner.high is 1.0; it must be below 1"):
        RandomLengthSchedule(inner=UniformLevels(low=0.2, high=1.0))


@given(st.integers(1, 30), st.integers(1, 100), st.floats(0, 0.999999))
def test_spread_anchors_are_taken_equally_often(num_anchors: int, batch: int, offset: float) -> None:
    anchors = spread_anchors(range(batch), offset=offset, num_anchors=num_anchors)
    taken = [anchors.count(index) for index in range(num_anchors)]
    assert sum(taken) == batch  # none lies outside of the schedule
    assert max(taken) - min(taken) <= 1


def test_geometric_lengths_fall_by_their_ratio() -> None:
    probabilities = GeometricLength(ratio=0.8).probabilities(28)
    assert sum(probabilities) == pytest.approx(1)
    assert [b / a for a, b in zip(probabilities, probabilities[1:], strict=False)] == pytest.approx([0.8] * 27)


@pytest.mark.parametrize(
    ("schedule", "mean"),
    [
        (RandomLengthSchedule(), 14.5),
        (RandomLengthSchedule(max_steps=8), 4.5),
        (RandomLengthSchedule(min_steps=3, max_steps=4, length=GeometricLength(ratio=0.5)), 10 / 3),
        (FixedSchedule(), 4.0),
    ],
)
def test_the_mean_length_is_that_of_the_law(schedule: FixedSchedule | RandomLengthSchedule, mean: float) -> None:
    assert schedule.mean_length == pytest.approx(mean)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_a_ratio_that_makes_no_length_rarer_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"ratio is {ratio}; it must be above 0 and below 1"):
        GeometricLength(ratio=ratio)
