"""What the outcomes say about a study: points, curves, the best of each, and recall at equal accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from benchmarks.evidence.intervals import Spread, pooled
from benchmarks.evidence.outcome import Outcome
from benchmarks.evidence.study import BUDGETS, Budget, Group, Run, Study
from benchmarks.evidence.task import Task


@dataclass(frozen=True)
class Point:
    """A method at one scale and budget.

    Attributes:
        runs: One for each training seed of the study.
        outcomes: Of the seeds that are there and did not diverge, by seed.
        diverged: Seeds whose training diverged.
    """

    runs: tuple[Run, ...]
    outcomes: Mapping[int, Outcome]
    diverged: tuple[int, ...]

    @property
    def scale(self) -> float | None:
        return self.runs[0].scale

    def values(self, figure: str, steps: int) -> list[float]:
        """Of each seed that was measured at these steps, the mean over noise seeds."""
        found = (outcome.figure(figure, steps) for outcome in self.outcomes.values())
        return [value for value in found if value is not None]

    def mean(self, figure: str, steps: int) -> float | None:
        values = self.values(figure, steps)
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Line:
    """A method over its scales.

    Attributes:
        method: Its name.
        budgets: How long it is trained; both where equal cost is equal updates.
        points: One for each scale.
    """

    method: str
    budgets: tuple[Budget, ...]
    points: tuple[Point, ...]

    @property
    def trained_for(self) -> str:
        return " and ".join(BUDGETS[budget] for budget in self.budgets)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for point in self.points for run in point.runs)

    def best(self, task: Task) -> Point | None:
        """The point with the least distance, of those that were measured."""
        known = [point for point in self.points if point.values(task.distance, task.steps)]
        return min(known, key=lambda point: point.mean(task.distance, task.steps) or 0.0) if known else None

    def recalls_at(self, accuracy: float, task: Task) -> list[float]:
        """Of each seed whose curve passes that accuracy, the recall there, between the two scales around it."""
        seeds = {seed for point in self.points for seed in point.outcomes}
        found = []
        for seed in sorted(seeds):
            outcomes = [point.outcomes[seed] for point in self.points if seed in point.outcomes]
            pairs = [(one.figure(task.accuracy, task.steps), one.figure(task.recall, task.steps)) for one in outcomes]
            passed = _passing(accuracy, [(x, y) for x, y in pairs if x is not None and y is not None])
            if passed is not None:
                found.append(passed)
        return found


def _passing(x: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """The height of the first piece of a curve that passes ``x``."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if min(x0, x1) <= x <= max(x0, x1):
            return y0 if x0 == x1 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None


@dataclass(frozen=True)
class Findings:
    """A study with what was made of it."""

    study: Study
    task: Task
    outcomes: Mapping[str, Outcome]

    @cached_property
    def runs(self) -> list[Run]:
        return self.study.runs(self.task)

    @cached_property
    def _lines(self) -> list[Line]:
        found: dict[tuple[str, Budget], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.method, run.budget), []).append(run)
        lines: dict[tuple[str, tuple[str, ...]], Line] = {}
        for (method, budget), runs in found.items():
            scales = sorted({run.scale for run in runs}, key=lambda scale: scale or 0.0)
            points = tuple(self._point([run for run in runs if run.scale == scale]) for scale in scales)
            line = Line(method, (budget,), points)
            same = lines.get((method, line.keys))
            lines[method, line.keys] = line if same is None else replace(same, budgets=(*same.budgets, budget))
        return list(lines.values())

    def line(self, method: str, budget: Budget = "updates") -> Line:
        """A method's curve at a budget."""
        return next(line for line in self._lines if line.method == method and budget in line.budgets)

    def lines(self, group: Group) -> list[Line]:
        """The distinct curves of a group, those at equal updates first."""
        names = [method.name for method in group.methods]
        own = [line for line in self._lines if line.method in names]
        return sorted(own, key=lambda line: (list(BUDGETS).index(line.budgets[0]), names.index(line.method)))

    @property
    def reference(self) -> Line:
        """What the others are compared with, at either budget."""
        return self.line(self.study.reference)

    @cached_property
    def equal_accuracy(self) -> float | None:
        """The accuracy at which recalls are compared: the reference's where its distance is least."""
        best = self.reference.best(self.task)
        return None if best is None else best.mean(self.task.accuracy, self.task.steps)

    def spread(self, figure: str, steps: int) -> Spread | None:
        """How much trainings differ in a figure: pooled over every point with several seeds."""
        return pooled(point.values(figure, steps) for line in self._lines for point in line.points)

    def noise_spread(self, figure: str, steps: int) -> Spread | None:
        """How much noise seeds move the same student."""
        return pooled(outcome.measured.get(steps, {}).get(figure, ()) for outcome in self.outcomes.values())

    @cached_property
    def recall_spread(self) -> Spread | None:
        """How much trainings differ in their recall at equal accuracy."""
        at = self.equal_accuracy
        return None if at is None else pooled(line.recalls_at(at, self.task) for line in self._lines)

    def _point(self, runs: Sequence[Run]) -> Point:
        made = {run.seed: self.outcomes[run.key] for run in runs if run.key in self.outcomes}
        return Point(
            runs=tuple(runs),
            outcomes={seed: one for seed, one in made.items() if one.diverged is None},
            diverged=tuple(seed for seed, one in made.items() if one.diverged is not None),
        )
