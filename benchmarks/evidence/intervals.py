"""How sure a mean over training seeds and a difference of two are, and what is called noise.

Trainings are few and dear: three seeds give a standard deviation of two degrees of freedom, one seed gives none. So one
standard deviation is pooled over every method that has several seeds, which all methods then share, and intervals are
Student's t of its degrees of freedom. A bootstrap over three seeds knows ten different resamples and is too narrow;
noise seeds are the same for every student, so they cancel in a difference and are no part of the interval.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """How much trainings differ.

    Attributes:
        deviation: The pooled standard deviation of one training.
        freedom: Its degrees of freedom.
    """

    deviation: float
    freedom: int

    def reach(self, weight: float, *, level: float = LEVEL) -> float:
        """Half the width of an interval of a sum of trainings whose squared coefficients add up to ``weight``."""
        quantile = float(stats.t.ppf((1.0 + level) / 2.0, self.freedom))
        return quantile * self.deviation * math.sqrt(weight)


@dataclass(frozen=True)
class Estimate:
    """A value, with its interval where the spread is known.

    Attributes:
        value: The mean, or the difference of two.
        reach: Half the interval's width; None where no method has two seeds.
    """

    value: float
    reach: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether zero is outside the interval; without an interval everything is noise."""
        return self.reach is not None and abs(self.value) > self.reach


def pooled(samples: Iterable[Sequence[float]]) -> Spread | None:
    """The spread within samples, whatever their means: sqrt(sum of squares within / sum (n - 1)); None without any."""
    squares, freedom = 0.0, 0
    for sample in samples:
        if len(sample) > 1:
            mean = sum(sample) / len(sample)
            squares += sum((value - mean) ** 2 for value in sample)
            freedom += len(sample) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


def mean_of(sample: Sequence[float], spread: Spread | None, *, level: float = LEVEL) -> Estimate:
    """The mean over training seeds: mean +- t deviation / sqrt(n)."""
    reach = None if spread is None else spread.reach(1.0 / len(sample), level=level)
    return Estimate(sum(sample) / len(sample), reach)


def difference(
    sample: Sequence[float], other: Sequence[float], spread: Spread | None, *, level: float = LEVEL
) -> Estimate:
    """The difference of two means: +- t deviation sqrt(1 / n + 1 / m)."""
    value = sum(sample) / len(sample) - sum(other) / len(other)
    reach = None if spread is None else spread.reach(1.0 / len(sample) + 1.0 / len(other), level=level)
    return Estimate(value, reach)


def shared_level(comparisons: int) -> float:
    """The level at which all intervals of a table hold together with probability ``LEVEL`` or more (Bonferroni)."""
    return 1.0 - (1.0 - LEVEL) / max(1, comparisons)
