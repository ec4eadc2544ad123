"""What a recipe costs in network calls, and what that is on a machine: an estimate, from counting alone.

One sample through the network forward is the unit: backward 2, recomputation by gradient checkpointing 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fewstep.config.run_config import RunConfig


@dataclass(frozen=True)
class Machine:
    """What computes, and how well it is used.

    Attributes:
        name: As it is printed.
        devices: Number of accelerators.
        teraflops: Peak of one by the recipe's precision, dense, 1e12 operations per second.
        utilisation: Share of the peak that the networks reach: an assumption, never measured here.
    """

    name: str
    devices: int
    teraflops: Mapping[str, float]
    utilisation: float


EIGHT_H100 = Machine("8 x H100", devices=8, teraflops={"bf16": 989.0, "fp32": 67.0}, utilisation=0.35)


def forward_units(config: RunConfig, *, rounds: int | None = None) -> float:
    """Forwards that one sample costs per student update, on average.

    The networks of the released settings without any saving cost 50 (55 with checkpointing); with the exact savings
    32.5 (36.5).

    Args:
        config: The recipe.
        rounds: Parts into which a process splits its samples; without it, one if ``memory.microbatch`` is not set.
    """
    return sum(units_by_part(config, rounds=rounds).values()) + health_units(config)


def units_by_part(config: RunConfig, *, rounds: int | None = None) -> dict[str, float]:
    """Those of the method by what they are for: ``simulation``, ``fake_score``, ``student``, ``frozen`` (only asked).

    The forward at the anchor, when it is kept, belongs to the simulation, and its backward to the student.
    """
    # selective checkpointing keeps what is counted here: matrix products and attention
    recompute = 1.0 if config.memory.recomputation is True else 0.0
    with_gradient = 3.0 + recompute
    if rounds is None:
        rounds = 1 if config.memory.microbatch is None else 2
    return {
        "simulation": _simulations(config),
        "fake_score": config.student.every * with_gradient,
        "student": _student(config, with_gradient, rounds),
        "frozen": _frozen(config),
    }


def health_units(config: RunConfig) -> float:
    """Forwards of one sample per student update that a health probe's pictures cost at most; other figures cost none.

    pictures (levels / every + teacher_steps (1 or 2) / updates) / batch
    """
    probe = None if config.health is None else config.health.probe
    if probe is None:
        return 0.0
    branches = 1 + (config.backbone.guided and config.sampling.teacher_guidance_scale != 1.0)
    once = config.sampling.teacher_steps * branches / config.budget.student_updates
    return probe.pictures * (len(config.sampling.levels) / probe.every + once) / config.batch


def hours(
    config: RunConfig, *, teraflop_per_forward: float, machine: Machine = EIGHT_H100, rounds: int | None = None
) -> float:
    """Hours of a whole run's network calls; encoding prompts, decoding sheets and saving come on top.

    hours = units updates batch teraflop / (devices peak utilisation 3600)
    """
    forwards = forward_units(config, rounds=rounds) * config.budget.student_updates * config.batch
    speed = machine.devices * machine.teraflops[config.precision.compute] * machine.utilisation
    return forwards * teraflop_per_forward / speed / 3600


def _simulations(config: RunConfig) -> float:
    """Calls up to each sample's anchor, the one at the anchor included, in all simulations of a student update."""
    mean = config.schedule.mean_length
    whole = config.fake_score.target == "final" or config.terms.needs_whole_simulation()
    one = mean + 1.0 if whole else (mean + 1.0 + config.terms.first_anchor) / 2
    # for terms with anchors of their own the last one goes all the way, and its calls are those at the anchors
    last = mean if config.simulation.anchors == "own" else one
    earlier = 0 if config.draw.reuse_trajectory else config.student.every - 1
    return earlier * one + last


def _student(config: RunConfig, with_gradient: float, rounds: int) -> float:
    own = config.simulation.anchors == "own"
    forwards = len(config.terms.graphs(own_anchors=own))
    # where a graph is kept, the call that ended the simulation is this forward
    kept = config.memory.keeps_anchor_graph(rounds) and not own
    saved = kept and any(term.at_anchor for term in config.terms.active().values())
    return forwards * with_gradient - saved + (config.terms.isg is not None)


def _frozen(config: RunConfig) -> float:
    terms = config.terms.active().values()
    asked = sum(1 + term.asks_guidance + term.asks_fake_score for term in terms)
    dp = config.terms.dp
    steps = 0 if dp is None else dp.steps * (1 + dp.guides)
    return asked + steps + (2.0 if config.terms.isg is not None else 0.0)
