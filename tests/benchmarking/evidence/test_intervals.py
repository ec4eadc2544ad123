"""Intervals agree with scipy's and with closed forms, hold what they promise, and noise is what they say."""

import math

import numpy as np
import pytest
from benchmarks.evidence.intervals import Estimate, Spread, difference, mean_of, pooled, shared_level
from scipy import stats

RANDOM = np.random.default_rng(0)


def test_of_two_values_the_spread_is_their_difference_over_the_root_of_two() -> None:
    assert pooled([[1.0, 4.0]]) == Spread(pytest.approx(3 / math.sqrt(2)), 1)


def test_the_pooled_spread_is_the_root_of_the_mean_variance_of_equal_samples() -> None:
    samples = RANDOM.normal(size=(5, 3)) + np.arange(5)[:, None]
    found = pooled(samples.tolist())
    assert found == Spread(pytest.approx(math.sqrt(samples.var(axis=1, ddof=1).mean())), 10)


def test_single_trainings_say_nothing_about_the_spread() -> None:
    assert pooled([[1.0], [5.0], []]) is None
    assert mean_of([1.0], None) == Estimate(1.0, None)
    assert not difference([1.0], [5.0], None).beyond_noise


def test_with_one_degree_of_freedom_the_quantile_is_a_tangent() -> None:
    assert Spread(1.0, 1).reach(1.0, level=0.9) == pytest.approx(math.tan(math.pi * 0.45))


def test_the_interval_of_one_method_alone_is_scipys() -> None:
    sample = RANDOM.normal(size=6).tolist()
    found = mean_of(sample, pooled([sample]))
    low, high = stats.t.interval(0.95, 5, loc=np.mean(sample), scale=stats.sem(sample))
    assert found.reach is not None
    assert (found.value - found.reach, found.value + found.reach) == pytest.approx((low, high))


def test_the_interval_of_a_difference_is_that_of_scipys_test_with_equal_variances() -> None:
    one, two = RANDOM.normal(size=3).tolist(), (RANDOM.normal(size=5) + 1).tolist()
    found = difference(one, two, pooled([one, two]))
    interval = stats.ttest_ind(one, two).confidence_interval(0.95)
    assert found.reach is not None
    assert (found.value - found.reach, found.value + found.reach) == pytest.approx((interval.low, interval.high))


def test_of_twenty_differences_by_chance_one_in_twenty_tables_calls_any_real() -> None:
    level = shared_level(19)
    false_alarms = 0
    for _ in range(400):
        # twenty methods that do not differ, three seeds each, compared with the first
        samples = RANDOM.normal(size=(20, 3)).tolist()
        spread = pooled(samples)
        false_alarms += any(difference(other, samples[0], spread, level=level).beyond_noise for other in samples[1:])
    # at most 5 %; 400 tables that reach it have 20 +- 4.4 alarms, so that 34 is three deviations more
    assert false_alarms <= 34


def test_one_comparison_has_the_whole_level() -> None:
    assert (shared_level(1), shared_level(5)) == (0.95, pytest.approx(0.99))
