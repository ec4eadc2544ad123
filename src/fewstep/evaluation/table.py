"""The table of an evaluation: every figure with its interval, and its difference to the teacher's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fewstep.evaluation.folder import ModelRecord
from fewstep.evaluation.intervals import GROUPS, Interval, Replicates, bootstrap, bootstrap_mean, jackknife
from fewstep.evaluation.models import Side
from fewstep.evaluation.pairs import Pair, interval_of, paired, pairs_of, verdict
from fewstep.evaluation.protocol_id import Measured
from fewstep.evaluation.scoring import Scored


@dataclass(frozen=True)
class Subject:
    """Whom a row of the table is about.

    Attributes:
        role: None for what is only shown beside them, such as real pictures.
        steps, calls, guidance: Of one picture; None where there is no such thing, or nobody counted.
        frames: Of one clip; None where it draws pictures.
    """

    name: str
    role: Side | None = None
    steps: int | None = None
    calls: float | None = None
    guidance: float | None = None
    frames: int | None = None

    @classmethod
    def of(cls, record: ModelRecord) -> Self:
        entry, sampling = record.entry, record.entry.sampling
        calls = record.calls_per_picture
        return cls(entry.name, entry.role, sampling.steps, calls, sampling.guidance_scale, sampling.frames)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one model.

    Attributes:
        metric: Name of the metric.
        figure: Name of the figure; the metric's own has its name.
        higher_is_better: None where neither way is.
        interval: Of the figure, over prompts; None for a single prompt, and for a stored figure without its pictures.
        difference: The figure minus the teacher's, None for the teacher and without one.
        difference_interval: Paired, over the same prompts.
        protocol: Id of the conditions.
        n: Pictures.
    """

    model: str
    role: Side | None
    metric: str
    figure: str
    value: float
    higher_is_better: bool | None
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    protocol: str
    n: int

    @property
    def verdict(self) -> str | None:
        """``better``, ``worse`` or ``no clear difference`` than the teacher; None where that is not known."""
        return verdict(self.difference_interval, higher_is_better=self.higher_is_better)


@dataclass(frozen=True)
class Table:
    """All cells, every two models against each other, and what was compared across protocols nevertheless."""

    subjects: tuple[Subject, ...]
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def about_clips(self) -> str:
        """How the frames of clips count, a sentence; nothing where pictures were drawn."""
        frames = sorted({subject.frames for subject in self.subjects if subject.frames})
        told = " or ".join(map(str, frames))
        return f"Clips have {told} frames, and a prompt's score is the mean over its frames. " if told else ""

    def of(self, model: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.model == model]

    def columns(self) -> list[tuple[str, str]]:
        """Metric and figure of every column, in order."""
        return list(dict.fromkeys((cell.metric, cell.figure) for cell in self.cells))

    def cell(self, model: str, figure: tuple[str, str]) -> Cell | None:
        return next((cell for cell in self.of(model) if (cell.metric, cell.figure) == figure), None)


def measured(scored: Sequence[Scored]) -> list[Measured]:
    """What a comparison looks at."""
    return [
        Measured(one.record.entry.name, one.record.entry.role, one.metric.card.name, one.id, one.conditions)
        for one in scored
    ]


def make_table(scored: Sequence[Scored], *, num_prompts: int, warnings: Sequence[str] = ()) -> Table:
    """Put scores and intervals into a table; the teacher is the one with that role."""
    records = {one.record.entry.name: one.record for one in scored}.values()
    by_metric: dict[str, list[Scored]] = {}
    for one in scored:
        by_metric.setdefault(one.metric.card.name, []).append(one)
    cells: list[Cell] = []
    pairs: list[Pair] = []
    for group in by_metric.values():
        drawn = {one.record.entry.name: _replicates(one, num_prompts) for one in group}
        cells += _cells(group, drawn)
        pairs += pairs_of(group, drawn, num_prompts=num_prompts)
    return Table(tuple(map(Subject.of, records)), tuple(cells), tuple(warnings), tuple(pairs))


def per_prompt(one: Scored, num_prompts: int) -> Tensor:
    """Mean score of every prompt."""
    scores = torch.tensor([finding.score for finding in one.findings], dtype=torch.float64)
    return scores.reshape(num_prompts, -1).mean(dim=1)


def _replicates(one: Scored, num_prompts: int) -> list[Replicates] | None:
    """Replicates of each figure, or None where there are too few prompts to tell."""
    if num_prompts < 2:
        return None
    names = list(one.figures)
    seeds = len(one.pictures) // num_prompts

    def chosen(positions: Sequence[int]) -> list[int]:
        return [prompt * seeds + seed for prompt in positions for seed in range(seeds)]

    def statistic(positions: Sequence[int]) -> Tensor:
        return _figures(one, chosen(positions), names)

    if one.metric.of_sets:
        left = num_prompts - math.ceil(num_prompts / GROUPS)
        return _columns(jackknife(statistic, num_prompts)) if left * seeds >= one.metric.min_pictures else None
    means = per_prompt(one, num_prompts)
    if len(names) == 1 and abs(float(means.mean()) - one.figures[names[0]]) < 1e-9 * max(1.0, abs(float(means.mean()))):
        return [bootstrap_mean(means)]
    return _columns(bootstrap(statistic, num_prompts))


def _figures(one: Scored, chosen: Sequence[int], names: Sequence[str]) -> Tensor:
    found = one.metric.conclude([one.pictures[i] for i in chosen], [one.findings[i] for i in chosen])
    # a figure that needs what these prompts lack (a category without a prompt) tells nothing about its spread
    return torch.tensor([found.get(name, float("nan")) for name in names], dtype=torch.float64)


def _columns(found: Replicates) -> list[Replicates]:
    columns = []
    for column in range(found.values.shape[1]):
        values = found.values[:, column]
        columns.append(Replicates(found.whole[column : column + 1], values.unsqueeze(1), found.kind))
    return columns


def _cells(group: Sequence[Scored], drawn: Mapping[str, Sequence[Replicates] | None]) -> list[Cell]:
    teacher = next((one for one in group if one.record.entry.role == "teacher"), None)
    cells = []
    for one in group:
        name = one.record.entry.name
        for column, (figure, value) in enumerate(one.figures.items()):
            own = drawn[name]
            compared = teacher is not None and one is not teacher and figure in teacher.figures
            against = None
            if compared and teacher is not None:
                against = paired(own, drawn[teacher.record.entry.name], column, list(teacher.figures).index(figure))
            cells.append(
                Cell(
                    model=name,
                    role=one.record.entry.role,
                    metric=one.metric.card.name,
                    figure=figure,
                    value=value,
                    higher_is_better=one.metric.card.higher_is_better,
                    interval=None if own is None else interval_of(own[column]),
                    difference=value - teacher.figures[figure] if compared and teacher is not None else None,
                    difference_interval=against,
                    protocol=one.id.whole,
                    n=len(one.pictures),
                )
            )
    return cells
