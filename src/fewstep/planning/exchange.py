"""What processes wait for each other: seconds of a student update on many devices, from counted bytes and calls.

FSDP2 gathers a network's weights for every forward and every backward among the ``shard`` processes of one copy, cuts
up its gradients among them in float32, and sums the parts over the ``replicate`` copies; along rings, whose first
bytes pass every process, and trees for sums::

    gather, reduce   bytes (s - 1) / s / bandwidth + groups (s - 1) hop
    sum              2 (r - 1) / r  bytes / s / bandwidth + groups 2 ceil(log2 r) hop

Calls are in step as well: each waits for the process with the most samples in it, so of few rows per process many are
waited for. Nothing here was measured.
"""

import math
from dataclasses import dataclass
from functools import cache

from fewstep.config.run_config import RunConfig
from fewstep.planning.cost import health_units, units_by_part
from fewstep.planning.memory import split
from fewstep.planning.planned_roles import FAKE_SCORE, STUDENT, PlannedRoles

_FP32 = 4


@dataclass(frozen=True)
class Links:
    """Between devices; the defaults are stated by makers or assumed.

    Attributes:
        node: Devices of one machine.
        within: Bytes per second that a device sends to others of its machine, NVLink of an H100.
        between: The same of a whole machine to others.
        reached: Share of both that a collective has.
        hop: Seconds from one process to the next, besides.
        overlap: Share of the shorter of computing and exchanging that goes on during the other.
    """

    node: int = 8
    within: float = 450e9
    between: float = 400e9
    reached: float = 0.7
    hop: float = 5e-6
    overlap: float = 0.8


@dataclass(frozen=True)
class Timing:
    """Of one student update with all updates of the fake score that belong to it, on average.

    Attributes:
        shard: Processes that share one copy of the weights.
        replicate: Copies.
        compute: Seconds in networks at the process that the others wait for.
        exchange: Seconds of gathering weights and summing gradients, as if nothing else went on.
        overlap: As in :class:`Links`.
    """

    shard: int
    replicate: int
    compute: float
    exchange: float
    overlap: float

    @property
    def seconds(self) -> float:
        """compute + exchange - overlap min(compute, exchange)"""
        return self.compute + self.exchange - self.overlap * min(self.compute, self.exchange)


def timing(config: RunConfig, roles: PlannedRoles, *, processes: int, speed: float, links: Links) -> Timing:
    """What a student update takes.

    Args:
        config: The recipe with its settings for memory and for ``parallel``.
        roles: Made from it.
        processes: One on each device.
        speed: Operations per second that networks reach on one device.
        links: Between the devices.
    """
    dealt = split(config, processes)
    shard, copies = dealt.shards, processes // dealt.shards
    calls, samples = simulated(config, rows=dealt.micro, processes=processes)
    parts = units_by_part(config, rounds=dealt.rounds)
    rest = sum(units for part, units in parts.items() if part != "simulation") + health_units(config)
    units = rest * dealt.rows + samples * dealt.rounds
    exchange = 0.0
    for role, (forwards, backwards) in passes(config, calls, dealt.rounds).items():
        groups = roles.spread(role, shard).groups
        one = cut_up(roles.weight_bytes(role), shard, groups=groups, links=links)
        exchange += dealt.rounds * (forwards + backwards) * one
        if backwards:
            gradients = _FP32 * roles.trained(role, 1)
            both = cut_up(gradients, shard, groups=groups, links=links)
            both += summed(gradients, shard, copies, groups=groups, links=links)
            exchange += dealt.rounds * backwards * both
    return Timing(shard, copies, units * roles.flops / speed, exchange, links.overlap)


def others_part(size: float, shard: int) -> float:
    """Of so many bytes that are cut up over processes, those that each has to get from the others, or give to them."""
    return size * (shard - 1) / shard


def cut_up(size: float, shard: int, *, groups: int, links: Links) -> float:
    """Seconds of gathering so many bytes among the processes that share them, or of reducing them to parts."""
    bandwidth = links.within if shard <= links.node else min(links.within, links.between)
    return others_part(size, shard) / (links.reached * bandwidth) + groups * (shard - 1) * links.hop


def summed(size: float, shard: int, copies: int, *, groups: int, links: Links) -> float:
    """Seconds of summing every process's part of so many bytes over the copies."""
    sent = 2 * (copies - 1) / copies * size / shard
    alone = shard * copies <= links.node
    # as many rings leave a machine as it holds different parts
    bandwidth = links.within if alone else min(links.within, links.between / min(shard, links.node))
    return sent / (links.reached * bandwidth) + groups * 2 * math.ceil(math.log2(copies)) * links.hop


def simulated(config: RunConfig, *, rows: int, processes: int) -> tuple[float, float]:
    """Calls in all simulations of a student update on average, and samples in them where they are waited for.

    Args:
        config: The recipe.
        rows: Samples of each process.
        processes: That make equal numbers of calls.
    """
    mean = config.schedule.mean_length
    whole = config.fake_score.target == "final" or config.terms.needs_whole_simulation()
    low, high = config.schedule.bounds
    shares = config.schedule.length_probabilities() or (1 / (high - low + 1),) * (high - low + 1)
    waited = _to_the_anchors(low, shares, config.terms.first_anchor, rows, processes)
    one = (mean + 1, (mean + 1) * rows) if whole else waited
    last = (mean, mean * rows) if config.simulation.anchors == "own" else one
    earlier = 0 if config.draw.reuse_trajectory else config.student.every - 1
    return earlier * one[0] + last[0], earlier * one[1] + last[1]


@cache
def _to_the_anchors(
    shortest: int, shares: tuple[float, ...], first: int, rows: int, processes: int
) -> tuple[float, float]:
    """Calls and samples of one simulation, its length drawn with these shares from the shortest on."""
    calls = samples = 0.0
    for length, share in enumerate(shares, shortest):
        for k in range(length - 1):
            beyond = 1.0 if k < first else (length - 1 - k) / (length - first)
            calls += share * (1.0 - _at_most(0, rows, beyond) ** processes)
            samples += share * _largest(rows, beyond, processes)
    return calls + 1.0, samples + rows  # and the call at the anchors


def _largest(rows: int, chance: float, processes: int) -> float:
    """Mean of the largest of the processes' numbers of rows, each row there with a chance of its own."""
    return sum(1.0 - _at_most(count, rows, chance) ** processes for count in range(rows))


def _at_most(count: int, rows: int, chance: float) -> float:
    return sum(math.comb(rows, k) * chance**k * (1 - chance) ** (rows - k) for k in range(count + 1))


def passes(config: RunConfig, simulation: float, rounds: int) -> dict[str, tuple[float, float]]:
    """Forward and backward passes of each role in a student update, of one of the rounds.

    Args:
        config: The recipe.
        simulation: Calls in all simulations of the update, those at the anchors included.
        rounds: Parts into which a process splits its samples.
    """
    terms, memory, own = config.terms, config.memory, config.simulation.anchors == "own"
    active, graphs = terms.active(), terms.graphs(own_anchors=own)
    kept = memory.keeps_anchor_graph(rounds) and not own and any(term.at_anchor for term in active.values())
    # those of one graph are asked together, or one by one
    looks = [[active[name] for name in names if name in active] for names in graphs]
    guided = [sum(1 + term.asks_guidance for term in look) for look in looks]
    followed = [sum(term.asks_fake_score for term in look) for look in looks]
    together = memory.batch_frozen_calls
    teacher, asked = (sum(min(number, 1) if together else number for number in each) for each in (guided, followed))
    detours = terms.isg is not None
    teacher += detours + (0 if terms.dp is None else terms.dp.steps)
    every = config.student.every
    return {
        STUDENT: (simulation + len(graphs) - kept + detours, len(graphs)),
        FAKE_SCORE: (every + asked, every),
        "teacher": (teacher, 0),
    }
