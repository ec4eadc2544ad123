"""How sure a figure and a difference are: intervals over prompts, with the two models' pictures kept in pairs.

Prompts are drawn, not pictures: the pictures of one prompt are alike, and other prompts are what a score is meant to
tell about. The student's and the teacher's picture of one prompt share their noise, so their difference varies less
than either does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_LEVEL = 0.95
_NORMAL_QUANTILE = 1.959963984540054
"""Of a two-sided interval of level 0.95."""
_RESAMPLES = 10_000
_SLOW_RESAMPLES = 1_000
GROUPS = 20

METHODS = (
    "Intervals are of level 95 %, over prompts: drawn with repetitions for scores of single pictures (bootstrap), left "
    "out in groups for figures of a whole set (jackknife), Wilson's for a share of prompts won. Pictures that a set is "
    "compared with are held fixed: an interval says what other prompts would change, not what another reference would. "
    "A difference of two models is paired: both are measured on the same draws of prompts."
)
"""What an interval here means, wherever one is shown."""

_Statistic = Callable[[Sequence[int]], Tensor]
"""Figures as a function of the positions of the prompts they are made from; a position may be repeated."""


@dataclass(frozen=True)
class Interval:
    """An interval of level 0.95 and how it was found."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Replicates:
    """Figures of one model on prompts drawn again and again; equal rows of two models were drawn alike.

    Attributes:
        whole: The figures on all prompts.
        values: A row per draw, a column per figure.
        kind: ``bootstrap`` draws with repetitions; ``jackknife`` leaves out one group after the other.
    """

    whole: Tensor
    values: Tensor
    kind: Literal["bootstrap", "jackknife"]

    def minus(self, other: "Replicates") -> "Replicates":
        """The paired difference of two models."""
        return Replicates(self.whole - other.whole, self.values - other.values, self.kind)

    def intervals(self) -> list[Interval]:
        """One interval per figure.

        bootstrap   the 2.5 % and 97.5 % points of the draws
        jackknife   whole +- 1.96 sqrt((g - 1) / g  sum_j (values_j - mean)^2)
        """
        if self.kind == "bootstrap":
            tail = (1 - _LEVEL) / 2
            points = torch.quantile(self.values, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
            low, high = points[0], points[1]
        else:
            groups = len(self.values)
            squares = (self.values - self.values.mean(dim=0)).square().sum(dim=0)
            reach = _NORMAL_QUANTILE * ((groups - 1) / groups * squares).sqrt()
            low, high = self.whole - reach, self.whole + reach
        name = f"paired {self.kind} over prompts, {len(self.values)} draws"
        return [Interval(a, b, name) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def wilson(share: float, count: int) -> Interval:
    """Of a share of ``count`` prompts, in which a prompt may also count in part.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Numbers from 0 to 1 scatter at most as zeros and ones of their mean do, so it is not too narrow for those; and
    unlike a bootstrap it does not shrink to a point where one model wins every prompt.
    """
    z = _NORMAL_QUANTILE
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval(max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale), "Wilson, over prompts")


def bootstrap_mean(per_prompt: Tensor, *, seed: int = 0, resamples: int = _RESAMPLES) -> Replicates:
    """Replicates of a mean over prompts."""
    values = per_prompt.double()
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, 4_000_000 // len(values))  # positions of 32 MB at a time
    means = []
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), len(values))
        means.append(values[torch.randint(len(values), shape, generator=generator)].mean(dim=1))
    return Replicates(values.mean().reshape(1), torch.cat(means).unsqueeze(1), "bootstrap")


def bootstrap(
    statistic: _Statistic, num_prompts: int, *, seed: int = 0, resamples: int = _SLOW_RESAMPLES
) -> Replicates:
    """Replicates of figures that bear repeated prompts."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(num_prompts, (num_prompts,), generator=generator).tolist() for _ in range(resamples)]
    values = torch.stack([statistic(positions) for positions in drawn])
    return Replicates(statistic(range(num_prompts)).double(), values.double(), "bootstrap")


def jackknife(statistic: _Statistic, num_prompts: int, *, groups: int = GROUPS) -> Replicates:
    """Replicates of figures of a whole set, which do not bear repeated pictures.

    A repeated picture is a neighbour at distance zero and a second sample without variety: by itself it moves coverage,
    diversity and a Frechet distance, so that a bootstrap of those is off. Groups of prompts are left out instead.
    """
    groups = min(groups, num_prompts)
    kept = [[i for i in range(num_prompts) if i % groups != group] for group in range(groups)]
    values = torch.stack([statistic(positions) for positions in kept])
    return Replicates(statistic(range(num_prompts)).double(), values.double(), "jackknife")
