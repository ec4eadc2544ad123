"""Which settings for memory fit a device, and what they cost: the fewest forwards first."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fewstep.config.memory_config import MemoryConfig
from fewstep.config.run_config import RunConfig
from fewstep.config.schema import leaf_paths
from fewstep.planning.cost import forward_units
from fewstep.planning.memory import GIB, Memory, predict, split
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.roles.recomputation import Recomputation
from fewstep.roles.weights import LoraWeights

FREE = tuple(leaf_paths(MemoryConfig, "memory."))
"""A plan chooses those that were not given; some of them it leaves as they are."""

KINDS: tuple[Recomputation, ...] = (False, "selective", True)
"""What blocks recompute, the quickest first."""


@dataclass(frozen=True)
class Reserve:
    """What a prediction of tensors does not see.

    Attributes:
        factor: On the peak: fragmentation, and what a prediction misses.
        constant: Bytes on top: the device's context and communicators.
    """

    factor: float
    constant: float


ASSUMED = Reserve(factor=1.15, constant=2.0 * GIB)


@dataclass(frozen=True)
class Choice:
    """One way to run a recipe.

    Attributes:
        config: The recipe with these settings.
        memory: Of one process.
        units: Forwards per sample and student update.
        needed: Bytes that a device must have: the peak and a reserve.
    """

    config: RunConfig
    memory: Memory
    units: float
    reserve: Reserve

    @property
    def needed(self) -> float:
        return self.reserve.factor * self.memory.peak + self.reserve.constant

    @property
    def settings(self) -> dict[str, Any]:
        """The free settings by their names in a recipe."""
        return {name: _get(self.config, name) for name in FREE}


def choose(
    config: RunConfig,
    roles: PlannedRoles,
    *,
    processes: int,
    limit: float,
    fixed: Collection[str] = (),
    reserve: Reserve = ASSUMED,
    seconds: Callable[[RunConfig], float] | None = None,
) -> tuple[Choice, bool]:
    """The cheapest settings that need at most ``limit`` bytes, and whether there are any; else the smallest ones.

    Args:
        config: The recipe.
        roles: Made from it.
        processes: Of the run.
        limit: Memory of one device.
        fixed: Names of ``FREE`` to leave as the recipe has them.
        reserve: That a device needs beside the peak.
        seconds: Of an update under some settings, to choose the quickest; None chooses the fewest forwards.
    """
    smallest: Choice | None = None
    for candidate, units in _in_order(config, processes, fixed, seconds):
        choice = Choice(candidate, predict(candidate, roles, processes=processes), units, reserve)
        if choice.needed <= limit:
            return choice, True
        if smallest is None or choice.needed < smallest.needed:
            smallest = choice
    assert smallest is not None
    return smallest, False


def _in_order(
    config: RunConfig, processes: int, fixed: Collection[str], seconds: Callable[[RunConfig], float] | None
) -> Iterator[tuple[RunConfig, float]]:
    """Every combination: without offloading first, then by seconds or forwards, then by the largest microbatch."""
    stated = {name for name in fixed if _get(config, name) != "auto"}
    values = {name: [_get(config, name)] if name in stated else _values(config, name, processes) for name in FREE}
    ranked = []
    for place, combination in enumerate(itertools.product(*values.values())):
        candidate = config
        for name, value in zip(values, combination, strict=True):
            candidate = _set(candidate, name.split("."), value)
        dealt = split(candidate, processes)
        units = forward_units(candidate, rounds=dealt.rounds)
        kind, offload = candidate.memory.recomputation, candidate.memory.offload
        cost = units if seconds is None else seconds(candidate)
        key = (offload.trained, offload.teacher, cost, -dealt.micro, KINDS.index(kind))
        ranked.append((key, place, candidate, units))
    for _, _, candidate, units in sorted(ranked, key=lambda entry: entry[:2]):
        yield candidate, units


def _values(config: RunConfig, name: str, processes: int) -> Sequence[Any]:
    match name:
        case "memory.microbatch":
            rows = split(_set(config, ["memory", "microbatch"], None), processes).rows
            halves: list[int | None] = [None]
            while rows > 1:
                rows = -(-rows // 2)
                halves.append(rows)
            return [half for half in halves if half is None or half >= config.terms.group]
        case "memory.gradient_checkpointing":
            return KINDS
        case "memory.keep_anchor_graph" | "memory.batch_frozen_calls":
            return (True, False)
        case "memory.offload.teacher" | "memory.offload.trained":
            return (False,) if _is_quantised(config) else (False, True)  # such a base is never offloaded
        case _:
            return (_get(config, name),)


def _is_quantised(config: RunConfig) -> bool:
    held = (config.student.weights, config.fake_score.weights)
    return any(isinstance(weights, LoraWeights) and weights.base != "compute" for weights in held)


def _get(config: RunConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _set(section: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of a frozen section with one value changed, however deep."""
    head, *rest = path
    changed = _set(getattr(section, head), rest, value) if rest else value
    return section.model_copy(update={head: changed})
