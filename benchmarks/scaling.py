"""How the cost of a student update grows: python -m benchmarks.scaling

Small random SD3 networks of which one measure grows at a time: the batch, the tokens of a picture, the depth, the
processes. Prints one JSON object with processor seconds, units and memory of tensors, and exponents: the slope of each
against the measure, both in logarithms. Ends with 1 when something but attention grows faster than in proportion.

Schedules have eight levels and anchors are dealt out evenly, so that units do not depend on luck. Attention is timed
operator by operator, forward and backward. For several processes the work of the first is measured, alone, with its
rows and all their calls; what they exchange is computed from its calls.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench_trainer import draw_with_lengths, random_trainer
from benchmarks.counting import Counter
from benchmarks.networks import Size
from fewstep.distributed.rounds import Round
from fewstep.methods.draws import Draws
from fewstep.planning.exchange import others_part
from fewstep.planning.measured import PeakMeter, resident
from fewstep.training.step_draws import DrawSource
from fewstep.training.trainer import Trainer

LENGTH = 8
SETTINGS = ("backbone.max_sequence_length=51", "memory.gradient_checkpointing=false")
TOLERANCE = 0.25
"""Above proportion: the cost of a sample varies with the batch it is computed in, with caches and other load."""
ROLES = ("student", "teacher", "fake_score")


@dataclass(frozen=True)
class Case:
    """One network and batch.

    Attributes:
        layers: Of the transformer.
        latent_side: A picture has a quarter of its square in tokens.
        batch: Of one process.
        processes: Each with that batch.
    """

    layers: int = 2
    latent_side: int = 16
    batch: int = 8
    processes: int = 1

    @property
    def tokens(self) -> int:
        """Of the picture and its prompt."""
        return (self.latent_side // 2) ** 2 + 77 + 51


@dataclass(frozen=True)
class Cost:
    """Of one student update at one process.

    Attributes:
        seconds: Processor time.
        attention: Of these, in attention.
        units: Samples through a network: forward 1, backward 2.
        working: Bytes of tensors at the peak, on top of what is there between two steps.
        exchanged: Bytes that a process receives and sends for its share of weights and gradients; computed.
    """

    seconds: float
    attention: float
    units: int
    working: int
    exchanged: float

    @property
    def rest(self) -> float:
        """Seconds outside of attention."""
        return self.seconds - self.attention


AXES: dict[str, list[Case]] = {
    "batch": [Case(batch=batch) for batch in (8, 16, 32)],
    "tokens": [Case(latent_side=side, batch=4) for side in (16, 32, 48)],
    "depth": [Case(layers=layers) for layers in (2, 4, 8)],
    "processes": [Case(processes=processes) for processes in (4, 16, 64)],
}
MEASURE: dict[str, Callable[[Case], int]] = {
    "batch": lambda case: case.batch,
    "tokens": lambda case: case.tokens,
    "depth": lambda case: case.layers,
    "processes": lambda case: case.processes,
}
LIMITS: dict[str, dict[str, float]] = {
    "batch": {"seconds": 1.0, "units": 1.0, "working": 1.0},
    "tokens": {"rest": 1.0, "attention": 2.0, "units": 0.0, "working": 1.0},
    "depth": {"seconds": 1.0, "units": 0.0, "working": 1.0},
    "processes": {"seconds": 0.0, "units": 0.0, "working": 0.0, "exchanged": 0.0},
}
"""The largest exponents that proportion allows, by axis and quantity; attention is quadratic in tokens."""


class AttentionClock(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Processor seconds spent in attention, forward and backward, while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.process_time()
        result = func(*args, **(kwargs or {}))
        if "scaled_dot_product" in str(func):
            self.seconds += time.process_time() - started
        return result


def measure(case: Case, *, repeats: int) -> Cost:
    """Cost of a student update: the quickest of some, after one that is not counted."""
    size = Size(layers=case.layers, heads=2, latent_side=case.latent_side)
    settings = [*SETTINGS, f"batch={case.batch * case.processes}"]
    with random_trainer(size, settings, num_prompts=8, processes=case.processes) as trainer:
        trainer.draw = evenly(draw_with_lengths(trainer, [LENGTH]))
        networks = {role: getattr(trainer.roles, role).network for role in ROLES}
        counter = Counter(networks, trainer.adapter.block_classes)
        _update(trainer)
        counter.taken()
        seconds = min(_timed(trainer) for _ in range(repeats))
        taken = counter.taken()
        there = resident(networks.values(), trainer.state_dict())
        before = sum({value.data_ptr(): value.nbytes for value in there}.values())
        # the clock is entered first, so that it sees attention without the meter around it
        with AttentionClock() as clock, PeakMeter(torch.device("cpu"), there) as meter:
            _update(trainer)
        weights = sum(parameter.nbytes for parameter in trainer.student_weights().values())
    return Cost(
        seconds=seconds,
        attention=clock.seconds,
        units=sum(role["units"] for role in taken.values()) // repeats,
        working=meter.peak - before,
        exchanged=_exchanged(taken, weights, case.processes) / repeats,
    )


def evenly(draw: DrawSource) -> DrawSource:
    """Give the rows of the batch the anchors 0, 1, ... in turn."""

    def drawn(step: int, rows: Round, with_terms: bool) -> Draws:
        draws = draw(step, rows, with_terms)
        anchor = tuple(row % draws.num_anchors for row in rows.own)
        return replace(
            draws, anchor=anchor, num_simulation_calls=max(row % draws.num_anchors for row in rows.concurrent)
        )

    return drawn


def exponent(measures: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    x, y = ([math.log(value) for value in row] for row in (measures, values))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def exponents(axis: str, costs: Mapping[int, Cost]) -> dict[str, float]:
    """Of every quantity that an axis has a limit for."""
    return {
        quantity: exponent(list(costs), [getattr(cost, quantity) for cost in costs.values()])
        for quantity in LIMITS[axis]
    }


def too_fast(axis: str, found: Mapping[str, float]) -> list[str]:
    """A sentence for every exponent above its limit."""
    return [
        f"{quantity} grow with {axis} to the power {value:.2f}, above {LIMITS[axis][quantity] + TOLERANCE:.2f}."
        for quantity, value in found.items()
        if not value <= LIMITS[axis][quantity] + TOLERANCE
    ]


def _update(trainer: Trainer) -> None:
    for _ in range(trainer.config.student.every):
        trainer.run_step()


def _timed(trainer: Trainer) -> float:
    started = time.process_time()
    _update(trainer)
    return time.process_time() - started


def _exchanged(taken: Mapping[str, Mapping[str, int]], weights: int, processes: int) -> float:
    """Every forward and backward call gathers a network's weights, and a backward sends gradients of their size."""
    per_gather = others_part(weights, processes)
    return per_gather * sum(role["calls"] + 2 * role["backward_calls"] for role in taken.values())


def _told(cost: Cost) -> dict[str, float | int]:
    return {
        "cpu_seconds": round(cost.seconds, 4),
        "attention_cpu_seconds": round(cost.attention, 4),
        "units": cost.units,
        "working_bytes": cost.working,
        "exchanged_bytes": round(cost.exchanged),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=list(AXES), metavar="AXIS", help=", ".join(AXES))
    parser.add_argument("--repeats", type=int, default=3, help="student updates of which the quickest counts")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result, problems = {}, []
    for axis in arguments.axes:
        costs = {MEASURE[axis](case): measure(case, repeats=arguments.repeats) for case in AXES[axis]}
        found = exponents(axis, costs)
        problems += too_fast(axis, found)
        rows = {str(value): _told(cost) for value, cost in costs.items()}
        result[axis] = {"measured": rows, "exponents": {name: round(value, 3) for name, value in found.items()}}
    print(json.dumps({"tolerance": TOLERANCE, "axes": result}, indent=1))
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
