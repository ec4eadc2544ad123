"""Intervals against formulas that are known."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewstep.evaluation.intervals import bootstrap, bootstrap_mean, jackknife, wilson


def normal_scores(count: int, *, seed: int, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_of(values: Tensor) -> object:
    return lambda positions: values[list(positions)].mean().reshape(1)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = normal_scores(400, seed=0, mean=2.0)
    (found,) = bootstrap_mean(values).intervals()
    reach = 1.96 * float(values.std(correction=0)) / 20
    # the bootstrap's own noise at 10,000 draws is about 3 % of the reach at an end
    assert found.low == pytest.approx(float(values.mean()) - reach, abs=0.08 * reach)
    assert found.high == pytest.approx(float(values.mean()) + reach, abs=0.08 * reach)


def test_a_pair_with_a_constant_gain_has_an_interval_without_width() -> None:
    teacher = normal_scores(50, seed=1)
    (found,) = bootstrap_mean(teacher + 0.25).minus(bootstrap_mean(teacher)).intervals()
    assert found.low == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25)


def test_pairing_is_narrower_than_the_two_intervals() -> None:
    teacher = normal_scores(100, seed=2)
    student = teacher + 0.1 * normal_scores(100, seed=3)
    paired = bootstrap_mean(student).minus(bootstrap_mean(teacher)).intervals()[0]
    alone = bootstrap_mean(student).intervals()[0]
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_nineteen_times_of_twenty() -> None:
    covered = 0
    for trial in range(200):
        (found,) = bootstrap_mean(normal_scores(60, seed=100 + trial), resamples=500).intervals()
        covered += found.low <= 0 <= found.high
    # 200 trials of 0.95 have a standard deviation of 3; the percentile interval at n = 60 covers a little less
    assert 178 <= covered <= 198


def test_the_same_prompts_are_drawn_for_both_models() -> None:
    values = normal_scores(30, seed=4)
    assert torch.equal(bootstrap_mean(values).values, bootstrap_mean(values).values)
    assert torch.equal(bootstrap_mean(2 * values).values, 2 * bootstrap_mean(values).values)


def test_the_slow_form_agrees_with_the_fast_one() -> None:
    values = normal_scores(80, seed=5)
    slow = bootstrap(mean_of(values), 80).intervals()[0]  # type: ignore[arg-type]
    fast = bootstrap_mean(values).intervals()[0]
    # an end of 1,000 draws is known to about a tenth of the reach
    assert slow.low == pytest.approx(fast.low, abs=0.15 * (fast.high - fast.low))
    assert slow.high == pytest.approx(fast.high, abs=0.15 * (fast.high - fast.low))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = normal_scores(40, seed=6)
    found = jackknife(mean_of(values), 40, groups=40).intervals()[0]  # type: ignore[arg-type]
    # leaving out one at a time gives exactly s / sqrt(n) for a mean
    reach = 1.959963984540054 * float(values.std(correction=1)) / 40**0.5
    assert found.high - found.low == pytest.approx(2 * reach)
    assert (found.high + found.low) / 2 == pytest.approx(float(values.mean()))


def test_the_jackknife_never_repeats_a_prompt() -> None:
    seen: list[list[int]] = []

    def statistic(positions: Sequence[int]) -> Tensor:
        seen.append(list(positions))
        return torch.zeros(1, dtype=torch.float64)

    jackknife(statistic, 45)
    assert all(len(set(positions)) == len(positions) for positions in seen)
    assert sorted(len(positions) for positions in seen) == [42] * 5 + [43] * 15 + [45]


def test_several_figures_come_out_together() -> None:
    values = normal_scores(20, seed=7)

    def both(positions: Sequence[int]) -> Tensor:
        chosen = values[list(positions)]
        return torch.stack([chosen.mean(), chosen.max()])

    intervals = jackknife(both, 20).intervals()
    assert len(intervals) == 2
    assert intervals[0].method == "paired jackknife over prompts, 20 draws"


def test_the_interval_of_a_share_is_wilsons() -> None:
    # statsmodels' proportion_confint(8, 10, method="wilson")
    found = wilson(0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)


@pytest.mark.parametrize(("share", "ends"), [(0.0, (0.0, 0.2775328)), (1.0, (0.7224672, 1.0))])
def test_a_share_of_all_or_nothing_has_an_interval_with_a_width(share: float, ends: tuple[float, float]) -> None:
    found = wilson(share, 10)
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-7)
