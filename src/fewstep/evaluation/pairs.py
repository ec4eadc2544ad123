"""Every two models against each other: by how much their figures differ, and on how many prompts one wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from fewstep.evaluation.intervals import Interval, Replicates, wilson
from fewstep.evaluation.scoring import Scored


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One figure of two models.

    Attributes:
        difference: The figure of ``model`` minus that of ``other``.
        interval: Of the difference, paired over prompts.
        win_rate: Share of prompts on which ``model`` is better, a tie is half a win; None for a figure of a whole set.
        win_interval: Of that share; None for a single prompt.
        prompts: How many.
    """

    model: str
    other: str
    metric: str
    figure: str
    higher_is_better: bool
    difference: float
    interval: Interval | None
    win_rate: float | None
    win_interval: Interval | None
    prompts: int

    @property
    def verdict(self) -> str | None:
        """``better``, ``worse`` or ``no clear difference``; None where that is not known."""
        return verdict(self.interval, higher_is_better=self.higher_is_better)


def verdict(difference: Interval | None, *, higher_is_better: bool | None) -> str | None:
    """What the interval of a difference says."""
    if difference is None:
        return None
    if difference.low <= 0 <= difference.high:
        return "no clear difference"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def pairs_of(
    group: Sequence[Scored], replicates: Mapping[str, Sequence[Replicates] | None], *, num_prompts: int
) -> list[Pair]:
    """Every two models of one metric, on every figure that both have.

    Args:
        group: The metric on each model.
        replicates: By model, one per figure; None where there are too few prompts.
    """
    pairs = []
    for one, other in combinations(group, 2):
        card = one.metric.card
        wins = None if one.metric.of_sets else _wins(one, other, num_prompts)
        for column, (figure, value) in enumerate(one.figures.items()):
            if figure not in other.figures:
                continue
            names = one.record.entry.name, other.record.entry.name
            rate = float(wins.mean()) if wins is not None and figure == card.name else None
            pairs.append(
                Pair(
                    model=names[0],
                    other=names[1],
                    metric=card.name,
                    figure=figure,
                    higher_is_better=card.higher_is_better,
                    difference=value - other.figures[figure],
                    interval=paired(
                        replicates[names[0]], replicates[names[1]], column, list(other.figures).index(figure)
                    ),
                    win_rate=rate,
                    win_interval=None if rate is None or num_prompts < 2 else wilson(rate, num_prompts),
                    prompts=num_prompts,
                )
            )
    return pairs


def _wins(one: Scored, other: Scored, num_prompts: int) -> Tensor:
    """How many of its pictures of a prompt are better than the other's of the same prompt and seed, as a share."""
    own, others = (
        torch.tensor([finding.score for finding in scored.findings], dtype=torch.float64)
        .reshape(num_prompts, len({picture.seed for picture in scored.pictures}), -1)
        .mean(dim=2)
        for scored in (one, other)
    )
    gain = own - others if one.metric.card.higher_is_better else others - own
    return ((gain.sign() + 1) / 2).mean(dim=1)


def paired(
    own: Sequence[Replicates] | None, other: Sequence[Replicates] | None, column: int, other_column: int
) -> Interval | None:
    """The interval of a difference; None where one of them has no replicates, or was drawn otherwise."""
    if own is None or other is None or len(own[column].values) != len(other[other_column].values):
        return None
    return interval_of(own[column].minus(other[other_column]))


def interval_of(found: Replicates) -> Interval | None:
    """One figure's interval; None where some draw did not have the figure."""
    return found.intervals()[0] if bool(found.values.isfinite().all()) else None
