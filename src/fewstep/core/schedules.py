"""Anchor schedules: the descending noise levels at which a backward simulation stops.

A schedule is written before the time shift and mapped by the backbone: one rule serves every backbone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.bounds import Levels, Share, Steps

ToSigma = Callable[[Tensor], Tensor]
"""A backbone's map from a pre-shift level in [0, 1] to its sigma; increasing, 1 goes to the largest sigma."""

FOUR_STEPS = (1.0, 0.75, 0.5, 0.25)


@dataclass(frozen=True)
class GeometricLength:
    """Each length is ``ratio`` times as likely as the one before: short schedules, which cost less, come more often."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["geometric"] = "geometric"
    ratio: Share = 0.9

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0:
            raise ValueError(f"ratio is {self.ratio}; it must be above 0 and below 1 (null draws lengths evenly)")

    def probabilities(self, count: int) -> tuple[float, ...]:
        """Of ``count`` lengths from the shortest on."""
        weights = [self.ratio**k for k in range(count)]
        return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True)
class UniformLevels:
    """level = low + (high - low) u, before the time shift; a law of ``core/sigmas.py`` acts behind it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["uniform"] = "uniform"
    low: Share = 0.0
    high: Share = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"low {self.low} and high {self.high} must satisfy 0 <= low < high <= 1")

    def levels(self, u: Float[Tensor, "b k1"]) -> Float[Tensor, "b k1"]:
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class FixedSchedule:
    """The same anchors every time.

    Attributes:
        levels: Pre-shift noise levels, strictly descending from 1, without the final 0.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    kind: Literal["fixed"] = "fixed"
    levels: Levels = FOUR_STEPS

    def __post_init__(self) -> None:
        check_levels(self.levels)

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest number of anchors."""
        return len(self.levels), len(self.levels)

    @property
    def mean_length(self) -> float:
        """Number of anchors on average."""
        return float(len(self.levels))

    def length_probabilities(self) -> tuple[float, ...] | None:
        """Of each number of anchors within the bounds; None when they are equal."""
        return None

    def sigmas(self, inner_u: Float[Tensor, "b k1"], to_sigma: ToSigma) -> Float[Tensor, "b k"]:
        """One row of anchors per row of ``inner_u``, whose values are not used."""
        levels = torch.tensor(self.levels, dtype=torch.float32, device=inner_u.device)
        return to_sigma(levels).expand(inner_u.shape[0], -1)


@dataclass(frozen=True)
class RandomLengthSchedule:
    """A continuous schedule of random length: 1, then N - 1 sorted draws.

        N ~ U{min_steps..max_steps};  levels = [1, sort_desc(draws of inner)]           [eq:random-schedule]

    N is one draw per step for all samples (it decides the number of network calls), the inner levels are drawn
    per sample. Differs: the released code draws the inner levels once per process and step.

    Attributes:
        min_steps: Smallest N.
        max_steps: Largest N.
        inner: Law of the inner levels.
        length: Law of N; None, as released, draws it evenly.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    kind: Literal["random_length"] = "random_length"
    min_steps: Steps = 1
    max_steps: Steps = 28
    inner: UniformLevels = UniformLevels(low=0.25, high=0.95)
    length: GeometricLength | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps:
            raise ValueError(f"min_steps {self.min_steps} and max_steps {self.max_steps} must satisfy 1 <= min <= max")
        if self.inner.high >= 1.0:
            raise ValueError(f"inner.high is {self.inner.high}; it must be below 1, the level of the first anchor")

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest number of anchors."""
        return self.min_steps, self.max_steps

    @property
    def mean_length(self) -> float:
        """Number of anchors on average."""
        probabilities = self.length_probabilities()
        if probabilities is None:
            return (self.min_steps + self.max_steps) / 2
        return sum(share * count for count, share in enumerate(probabilities, self.min_steps))

    def length_probabilities(self) -> tuple[float, ...] | None:
        """Of each number of anchors within the bounds; None when they are equal."""
        return None if self.length is None else self.length.probabilities(self.max_steps - self.min_steps + 1)

    def sigmas(self, inner_u: Float[Tensor, "b k1"], to_sigma: ToSigma) -> Float[Tensor, "b k"]:
        """Anchors of each sample: ``inner_u`` holds N - 1 raw uniform draws per sample."""
        inner = self.inner.levels(inner_u)
        first = torch.ones_like(inner_u[:, :1]) if inner_u.shape[1] else inner_u.new_ones(inner_u.shape[0], 1)
        return to_sigma(torch.cat([first, inner.sort(dim=1, descending=True).values], dim=1))


Schedule = FixedSchedule | RandomLengthSchedule


def spread_anchors(ranks: Sequence[int], *, offset: float, num_anchors: int) -> tuple[int, ...]:
    """Anchor indices of a whole batch, each taken by as many samples as any other, one more or less.

        i_j = floor((rank_j + offset) N / b),  offset ~ U(0, 1)         [eq:stratified-anchors]

    Under a random order of the samples each index is still even over 0..N - 1: rank_j + offset is uniform in [0, b).

    Args:
        ranks: The numbers 0..b - 1 in random order.
        offset: In [0, 1).
        num_anchors: N, the length of the schedule.
    """
    return tuple(min(int((rank + offset) * num_anchors / len(ranks)), num_anchors - 1) for rank in ranks)


def check_levels(levels: tuple[float, ...]) -> None:
    """Raise ValueError unless ``levels`` starts at 1 and strictly descends above 0."""
    if not levels or levels[0] != 1.0:
        raise ValueError(f"levels {list(levels)} must start at 1, the level of pure noise")
    if any(a <= b for a, b in zip(levels, levels[1:], strict=False)) or levels[-1] <= 0:
        raise ValueError(f"levels {list(levels)} must strictly descend and stay above 0 (the final 0 is implied)")


def with_final_zero(sigmas: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k1"]:
    """Append the final noise level 0, where the last Euler step ends."""
    return torch.cat([sigmas, torch.zeros_like(sigmas[..., :1])], dim=-1)
