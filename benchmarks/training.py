"""What training saves against the plain formulation: python -m benchmarks.training --protocol published

One process, one run, in turn (A B A B): the plain formulation of ``benchmarks/plain.py`` and the real trainer make the
same student updates, each with weights, optimisers and averages of its own, on the same draws and prompts. Prints one
JSON object and ends with 1 when the weights of the two differ at the end, or when either made other calls than the
formulas say.

    published   the model, batch and schedule lengths of the CPU measurement of the published code (docs/scaling.md)
    embedded    the recipe digits
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench_trainer import PUBLISHED_LENGTHS, bench_trainer, draw_with_lengths, random_trainer
from benchmarks.counting import Counter
from benchmarks.networks import Size
from benchmarks.plain import PlainTrainer, require_plain
from fewstep.config.run_config import RunConfig
from fewstep.data.prompts import load_prompts
from fewstep.distributed.rounds import Round
from fewstep.distributed.sharding import local
from fewstep.methods.draws import Draws
from fewstep.planning.measured import PeakMeter, resident
from fewstep.training.trainer import Trainer

TOLERANCE = 1e-3
"""Largest difference of a role's weights, relative to how far they moved: rounding alone makes 1e-5 to 1e-4."""
MEAN_LENGTH = 14.5
UPDATES = {"published": 17, "embedded": 8}


@dataclass
class Side:
    """One of the two formulations, and what its student updates cost."""

    step: Callable[[], object]
    networks: Mapping[str, nn.Module]
    resident: Callable[[], Sequence[Tensor]]
    counter: Counter
    seconds: list[float] = field(default_factory=list)
    calls: list[dict[str, dict[str, int]]] = field(default_factory=list)
    peak: int = 0

    def update(self, steps: int) -> None:
        """Make the steps of one student update, timed and counted."""
        self.counter.taken()
        started = time.process_time()
        for _ in range(steps):
            self.step()
        self.seconds.append(time.process_time() - started)
        self.calls.append(self.counter.taken())

    def forget(self) -> None:
        """Start again: what was made was for warmth."""
        self.seconds.clear()
        self.calls.clear()

    def weigh(self, steps: int) -> None:
        """Make one more student update, slowly, and count the memory of its tensors."""
        with PeakMeter(torch.device("cpu"), self.resident()) as meter:
            for _ in range(steps):
                self.step()
        self.peak = meter.peak

    def units(self) -> list[int]:
        """Of each student update."""
        return [sum(counts["units"] for counts in roles.values()) for roles in self.calls]

    def told(self, batch: int) -> dict[str, Any]:
        """Means per student update."""
        units = statistics.fmean(self.units())
        seconds = statistics.fmean(self.seconds)
        roles = self.calls[0]
        counts = {
            role: {name: statistics.fmean(calls[role][name] for calls in self.calls) for name in roles[role]}
            for role in roles
        }
        return {
            "cpu_seconds": [round(value, 3) for value in self.seconds],
            "cpu_seconds_per_update": seconds,
            "cpu_seconds_per_unit": seconds / units,
            "units_per_update": units,
            "units_per_update_and_sample": units / batch,
            "peak_bytes": self.peak,
            "roles": counts,
        }


@contextmanager
def protocol_trainer(
    protocol: str, *, checkpointing: bool | None = None, overrides: Sequence[str] = ()
) -> Iterator[Trainer]:
    """The trainer of a protocol, drawing what the protocol says; None leaves checkpointing as the protocol has it."""
    if protocol == "embedded":
        settings = [f"memory.gradient_checkpointing={str(bool(checkpointing)).lower()}", *overrides]
        with bench_trainer("digits", settings) as trainer:
            yield trainer
        return
    settings = ["batch=8", f"memory.gradient_checkpointing={str(checkpointing is not False).lower()}", *overrides]
    with random_trainer(Size(), settings) as trainer:
        trainer.draw = draw_with_lengths(trainer, PUBLISHED_LENGTHS)
        yield trainer


def compare(trainer: Trainer, plain: PlainTrainer, *, updates: int) -> tuple[dict[str, Any], list[str]]:
    """Make one student update for warmth, ``updates`` that are timed, and one whose memory is counted, in turn.

    Returns:
        What was measured, and sentences about what should not be.
    """
    config, every = trainer.config, trainer.config.student.every
    require_plain(config)
    sides = _sides(trainer, plain)
    for update in range(updates + 1):
        for side in sides.values():
            side.update(every)
        took = ", ".join(f"{name} {side.seconds[-1]:.3g}" for name, side in sides.items())
        print(f"update {update} of {updates}: CPU seconds {took}", file=sys.stderr, flush=True)
        if update == 0:
            for side in sides.values():
                side.forget()
    for side in sides.values():
        side.weigh(every)
    draws = [[_drawn(trainer, update * every + step) for step in range(every)] for update in range(1, updates + 1)]
    differences = weight_differences(trainer, plain)
    problems = [*_wrong_units(config, sides, draws), *too_far_apart(differences)]
    return _result(config, sides, draws, differences), problems


def weight_differences(trainer: Trainer, plain: PlainTrainer) -> dict[str, float]:
    """How far the weights of the two are apart, relative to how far they moved from the teacher's."""
    start = dict(plain.teacher.named_parameters())
    pairs: dict[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = {
        "student": (trainer.student_weights(), dict(plain.student.named_parameters())),
        "fake_score": (trainer.roles.fake_score.weights(), dict(plain.fake_score.named_parameters())),
    }
    if trainer.ema is not None:
        pairs["average"] = (trainer.ema.shadow, plain.average)
    return {role: _difference(ours, theirs, start) for role, (ours, theirs) in pairs.items()}


@torch.no_grad()
def _difference(ours: Mapping[str, Tensor], plain: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    apart = torch.cat([(local(ours[name]) - plain[name]).flatten() for name in plain])
    moved = torch.cat([(plain[name] - start[name]).flatten() for name in plain])
    return float(apart.norm() / moved.norm())


def _sides(trainer: Trainer, plain: PlainTrainer) -> dict[str, Side]:
    blocks = trainer.adapter.block_classes
    networks = {role: getattr(trainer.roles, role).network for role in plain.networks}

    def ours_resident() -> Sequence[Tensor]:
        return resident(networks.values(), trainer.state_dict())

    return {
        "plain": Side(plain.run_step, plain.networks, plain.resident, Counter(plain.networks, blocks)),
        "ours": Side(trainer.run_step, networks, ours_resident, Counter(networks, blocks)),
    }


def _drawn(trainer: Trainer, step: int) -> Draws:
    rows = range(trainer.config.batch)
    return trainer.draw(step, Round(rows, rows, 1.0), False)


def expected_units(config: RunConfig, draws: Sequence[Draws]) -> dict[str, float]:
    """Units per sample of one student update, by the formulas, for its drawn lengths and anchors."""
    anchors = sum(1 + statistics.fmean(drawn.anchor) for drawn in draws)
    return _units(config, whole=sum(drawn.num_anchors for drawn in draws), to_anchor=anchors)


def _units(config: RunConfig, *, whole: float, to_anchor: float) -> dict[str, float]:
    gradient = 4.0 if config.memory.gradient_checkpointing else 3.0
    updates, frozen = config.student.every * gradient, 4.0 + 2.0
    shared = 1.0 if config.memory.keeps_anchor_graph(1) else 0.0
    return {
        "plain": whole + updates + 3 * gradient + frozen,
        # the simulation ends with the forward of ca and dm, of which the backward remains
        "ours": to_anchor + updates + (gradient - shared) + gradient + frozen,
    }


def best_ratio(config: RunConfig, mean_length: float) -> float:
    """Units of the plain formulation over ours for schedules of some mean length and anchors of the mean."""
    every = config.student.every
    units = _units(config, whole=every * mean_length, to_anchor=every * (mean_length + 1) / 2)
    return units["plain"] / units["ours"]


def _wrong_units(config: RunConfig, sides: Mapping[str, Side], draws: Sequence[Sequence[Draws]]) -> list[str]:
    wrong = []
    for name, side in sides.items():
        for update, (units, drawn) in enumerate(zip(side.units(), draws, strict=True)):
            expected = config.batch * expected_units(config, drawn)[name]
            if abs(units - expected) > 1e-6 * expected:
                wrong.append(f"{name} cost {units} units in update {update}, but the formulas say {expected:g}.")
    return wrong


def too_far_apart(differences: Mapping[str, float]) -> list[str]:
    """A sentence for every role whose weights differ by more than rounding."""
    return [
        f"The weights of {role} differ by {value:.1e} of how far they moved; at most {TOLERANCE:.0e} is rounding."
        for role, value in differences.items()
        if not value <= TOLERANCE
    ]


def _result(
    config: RunConfig,
    sides: Mapping[str, Side],
    draws: Sequence[Sequence[Draws]],
    differences: Mapping[str, float],
) -> dict[str, Any]:
    plain, ours = sides["plain"], sides["ours"]
    lengths = [[drawn.num_anchors for drawn in steps] for steps in draws]
    mean = statistics.fmean(length for steps in lengths for length in steps)
    pairs = [a / b for a, b in zip(plain.seconds, ours.seconds, strict=True)]
    return {
        "updates": len(draws),
        "batch": config.batch,
        "checkpointing": config.memory.gradient_checkpointing,
        "parameters": sum(parameter.numel() for parameter in plain.networks["student"].parameters()),
        "lengths": lengths,
        "plain": plain.told(config.batch),
        "ours": ours.told(config.batch),
        "ratios": {
            "units": sum(plain.units()) / sum(ours.units()),
            "cpu_seconds": sum(plain.seconds) / sum(ours.seconds),
            "cpu_seconds_median_of_updates": statistics.median(pairs),
            "peak_bytes": plain.peak / ours.peak,
        },
        "best_unit_ratio": {
            "of_the_drawn_lengths": best_ratio(config, mean),
            "of_the_mean_length": best_ratio(config, MEAN_LENGTH),
        },
        "weights_relative_difference": dict(differences),
        "tolerance": TOLERANCE,
    }


def rounded(value: Any) -> Any:
    """Every number to five digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe, for both sides")
    parser.add_argument("--protocol", choices=tuple(UPDATES), default="embedded")
    parser.add_argument("--updates", type=int, help="student updates that are timed; 17 (published) or 8 (embedded)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="on for published, else off")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = {"checkpointing": arguments.checkpointing, "overrides": arguments.overrides}
    with protocol_trainer(arguments.protocol, **options) as trainer:
        plain = PlainTrainer(trainer.config, trainer.adapter, load_prompts(trainer.config.prompts), trainer.draw)
        result, problems = compare(trainer, plain, updates=arguments.updates or UPDATES[arguments.protocol])
    about = {"protocol": arguments.protocol, "threads": arguments.threads, "overrides": arguments.overrides}
    print(json.dumps(rounded(about | result), indent=1))
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
