"""What is compared: methods as curves over a scale, at equal updates and at equal cost. A study is a JSON file."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.evidence.task import TASKS, Task
from fewstep.config.identity import identity
from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError, shown
from fewstep.files import UnreadableError, read_json
from fewstep.planning.cost import forward_units

GENERATION = 1
"""Raise it when the code computes other numbers for the same settings: then everything is made again."""

Budget = Literal["updates", "forwards"]
"""Equal student updates; or as many as cost what the reference's updates cost in forwards."""

BUDGETS: Mapping[Budget, str] = {"updates": "equal updates", "forwards": "equal cost"}


@dataclass(frozen=True)
class Curve:
    """The setting that a method is a curve over, and its values."""

    setting: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        name: As the page writes it.
        overrides: Of the task's recipe.
        curve: Name of the curve; None is a method of a single point.
        published: HPSv3 of the paper's ablation on SD3-Medium, where it has this one.
    """

    name: str
    overrides: tuple[str, ...] = ()
    curve: str | None = None
    published: float | None = None


@dataclass(frozen=True)
class Group:
    """Methods that are measured alike.

    Attributes:
        name: As the page writes it.
        seeds: Training seeds.
        steps: Network calls of a picture; every student is measured at all of them.
        methods: In the page's order.
        budgets: How long they are trained.
    """

    name: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    methods: tuple[Method, ...]
    budgets: tuple[Budget, ...] = ("updates", "forwards")


@dataclass(frozen=True)
class Run:
    """One training with its measurements.

    Attributes:
        group, method, scale, budget, seed: Its place in the study; ``scale`` is None for a method of a single point.
        steps: Network calls of a picture at which its student is measured.
        overrides: Of the task's recipe, without seed and updates.
        updates: Of the student.
        units: Forwards that one sample costs per student update.
        key: Names everything that decides its figures; two places of a study may share it.
    """

    group: str
    method: str
    scale: float | None
    budget: Budget
    seed: int
    steps: tuple[int, ...]
    overrides: tuple[str, ...]
    updates: int
    units: float
    key: str

    @property
    def settings(self) -> tuple[str, ...]:
        """Every override that decides what is trained."""
        return (*self.overrides, f"seed={self.seed}", f"budget.student_updates={self.updates}")

    @property
    def title(self) -> str:
        """How it is called while it is made."""
        scale = "" if self.scale is None else f" at {self.scale:g}"
        return f"{self.method}{scale}, {BUDGETS[self.budget]} ({self.updates}), seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """All of it.

    Attributes:
        task: Name of the task.
        reference: The method that the others are compared with.
        curves: By name.
        groups: The most wanted first.
        overrides: Of every method.
    """

    task: str
    reference: str
    curves: Mapping[str, Curve]
    groups: tuple[Group, ...]
    overrides: tuple[str, ...] = ()

    @property
    def methods(self) -> dict[str, Method]:
        """By name."""
        return {method.name: method for group in self.groups for method in group.methods}

    def scales(self, method: Method) -> tuple[float | None, ...]:
        """The values of a method's curve."""
        return (None,) if method.curve is None else self.curves[method.curve].values

    def runs(self, task: Task) -> list[Run]:
        """Every run, in the order in which they are made, so that a study that is cut short has the most to say.

        The middle of every curve comes before its ends, and the first seeds of everything before any second.
        """
        reference = self._config(task, self.methods[self.reference], self.scales(self.methods[self.reference])[0])
        cost = forward_units(reference) * reference.budget.student_updates
        facts = task.identity()
        found = [run for group in self.groups for run in self._runs_of(group, task, cost, facts)]
        turn = {seed: i for group in self.groups for i, seed in enumerate(group.seeds)}
        budgets = list(BUDGETS)
        return sorted(found, key=lambda run: (not self._is_middle(run), turn[run.seed], budgets.index(run.budget)))

    def _is_middle(self, run: Run) -> bool:
        scales = self.scales(self.methods[run.method])
        return run.scale == scales[len(scales) // 2]

    def _runs_of(self, group: Group, task: Task, cost: float, facts: Mapping[str, Any]) -> Iterator[Run]:
        for method in group.methods:
            for scale in self.scales(method):
                config = self._config(task, method, scale)
                units = forward_units(config)
                for budget, seed in itertools.product(group.budgets, group.seeds):
                    stated = config.budget.student_updates
                    updates = stated if budget == "updates" else max(1, round(cost / units))
                    yield Run(
                        group=group.name,
                        method=method.name,
                        scale=scale,
                        budget=budget,
                        seed=seed,
                        steps=group.steps,
                        overrides=self._overrides(method, scale),
                        updates=updates,
                        units=units,
                        key=_key(config.model_copy(update={"seed": seed}), updates, facts),
                    )

    def _overrides(self, method: Method, scale: float | None) -> tuple[str, ...]:
        dialled = () if method.curve is None else (f"{self.curves[method.curve].setting}={scale}",)
        return (*self.overrides, *method.overrides, *dialled)

    def _config(self, task: Task, method: Method, scale: float | None) -> RunConfig:
        return load_recipe(task.recipe, self._overrides(method, scale)).config


def _key(config: RunConfig, updates: int, facts: Mapping[str, Any]) -> str:
    decisive = {"generation": GENERATION, "config": identity(config), "updates": updates, "task": facts}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def load_study(path: Path) -> Study:
    """Read and check a study.

    Raises:
        ConfigError: The file cannot be read, or names what it does not have.
    """
    try:
        study = read_json(path, Study)
    except UnreadableError as error:
        raise ConfigError(f"The study {path} cannot be used: {error}. Write it as digits.json is written.") from error
    problem = _problem(study)
    if problem is not None:
        raise ConfigError(f"The study {path} {problem}.")
    return study


def _problem(study: Study) -> str | None:
    """What does not fit together, as a sentence goes on after the study's name."""
    names = [method.name for group in study.groups for method in group.methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        return f"has two methods called {shown(twice)}; give one of them another name"
    if study.reference not in names:
        return f"compares with {shown(study.reference)}, which is none of its methods; name one of {', '.join(names)}"
    if study.task not in TASKS:
        return f"has the task {shown(study.task)}; it must be one of {', '.join(TASKS)}"
    for method in study.methods.values():
        if method.curve is not None and method.curve not in study.curves:
            known = ", ".join(study.curves)
            return f"gives {method.name} the curve {shown(method.curve)}; it must be one of {known}"
    return None
