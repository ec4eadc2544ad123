"""What the exact savings save, on the embedded recipe: python -m benchmarks.savings

Per student update, the plain formulation (whole simulation, a student forward per term, a call per probe) against ours,
on the same draws and weights, one after the other: A B A B. No weight moves, so both do the same work every time, and
their student gradients are compared. Times are processor time; units are one sample through a network: forward 1,
backward 2.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.bench_trainer import bench_trainer
from fewstep.backbones.protocol import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.distributed.rows import Round
from fewstep.distributed.sharding import local
from fewstep.methods.cdm import Method, Simulated, fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws
from fewstep.methods.simulation import simulate_whole
from fewstep.methods.terms import Terms
from fewstep.roles.role import Role
from fewstep.training.trainer import Trainer

EXPECTED = {"plain": 50.0, "ours": 32.5}
"""Units per student update and sample for the released schedule: two steps, 14.5 anchors on average."""


class Counted:
    """A role that counts the units it costs."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.units = 0
        self.answers: list[Tensor] = []

    def __call__(self, point: NoisyLatent, cond: Conditioning) -> Tensor:
        velocity = self.role(point, cond)
        self.units += len(point.sigma) * (3 if velocity.requires_grad else 1)
        self.answers.append(velocity.detach())
        return velocity


@dataclass(frozen=True)
class Networks:
    """The three roles, counted."""

    student: Counted
    teacher: Counted
    fake_score: Counted

    @classmethod
    def of(cls, trainer: Trainer) -> "Networks":
        roles = trainer.roles
        return cls(Counted(roles.student), Counted(roles.teacher), Counted(roles.fake_score))

    @property
    def units(self) -> int:
        return self.student.units + self.teacher.units + self.fake_score.units


@dataclass(frozen=True)
class Step:
    """The inputs of one step."""

    draws: Draws
    prompts: PromptBatch


@dataclass(frozen=True)
class Measured:
    """One student update in one formulation."""

    seconds: float
    units: float
    gradient: Tensor


Formulation = Callable[[Method, Networks, Sequence[Step]], None]


def ours(method: Method, networks: Networks, steps: Sequence[Step]) -> None:
    """The steps of one student update as the trainer makes them."""
    for step in steps:
        graph = bool(step.draws.terms)
        simulated = simulate(method, networks.student, step.prompts, step.draws, anchor_gradient=graph)
        fake_score_losses(method, networks.fake_score, simulated, step.prompts, step.draws).mean().backward()
    _student_loss(method, networks, simulated, step).backward()


def plain(method: Method, networks: Networks, steps: Sequence[Step]) -> None:
    """The same update as the formulas stand: everything is simulated, every term asks for itself."""
    for step in steps:
        simulated = _whole_simulation(method, networks.student, step)
        fake_score_losses(method, networks.fake_score, simulated, step.prompts, step.draws).mean().backward()
    one_by_one = [
        replace(method, terms=Terms(**{name: term}), batch_frozen_calls=False)
        for name, term in method.terms.active().items()
    ]
    torch.stack([_student_loss(alone, networks, simulated, step) for alone in one_by_one]).sum().backward()


def _student_loss(method: Method, networks: Networks, simulated: Simulated, step: Step) -> Tensor:
    losses = student_losses(
        method,
        student=networks.student,
        teacher=networks.teacher,
        fake_score=networks.fake_score,
        guided_teacher=networks.teacher.role.guided,
        simulated=simulated,
        prompts=step.prompts,
        draws=step.draws,
    )
    weights = method.terms.active()
    return torch.stack([weights[name].weight * loss.mean() for name, loss in losses.items()]).sum()


def _whole_simulation(method: Method, student: Counted, step: Step) -> Simulated:
    sigmas = method.schedule.sigmas(step.draws.inner_u, method.to_sigma)
    initial = step.draws.initial_noise * method.initial_scale
    student.answers.clear()
    trajectory = simulate_whole(student, initial, sigmas, step.prompts.student, anchor=step.draws.anchor)
    rows = torch.arange(len(step.draws.anchor))
    return Simulated(trajectory, torch.stack(student.answers)[torch.tensor(step.draws.anchor), rows])


def measure(trainer: Trainer, formulation: Formulation, steps: Sequence[Step]) -> Measured:
    """Time and count one student update."""
    networks, student = Networks.of(trainer), trainer.roles.student
    for role in (student, trainer.roles.fake_score):
        role.network.zero_grad(set_to_none=True)
    started = time.process_time()
    formulation(trainer.method, networks, steps)
    seconds = time.process_time() - started
    weights = student.weights().values()
    gradient = torch.cat([local(p.grad).flatten() for p in weights if p.grad is not None])
    return Measured(seconds, networks.units / trainer.config.batch, gradient)


def update_steps(trainer: Trainer, update: int) -> list[Step]:
    """The draws and prompts of one student update's steps."""
    rows, every = range(trainer.config.batch), trainer.config.student.every
    steps = []
    for step in range(update * every, (update + 1) * every):
        indices = [(step * len(rows) + j) % len(trainer.embeddings) for j in rows]
        null_cond = trainer.embeddings.null.expand(len(rows))
        prompts = trainer.adapter.prompt_batch(trainer.embeddings.batch(indices), null_cond)
        steps.append(Step(trainer.draw(step, Round(rows, rows, 1.0), (step + 1) % every == 0), prompts))
    return steps


def predicted(steps: Sequence[Step]) -> dict[str, float]:
    """Units per sample that the formulas give for these draws."""
    updates = 3.0 * len(steps)  # forward and backward of the fake score
    frozen = 4.0 + 2.0  # teacher: cond and null for ca, cond for dm and cdm; fake score: dm and cdm
    whole = sum(step.draws.num_anchors for step in steps)
    live = sum(1 + statistics.fmean(step.draws.anchor) for step in steps)
    return {
        "plain": whole + updates + 3 * 3.0 + frozen,
        "ours": live + 2.0 + updates + 3.0 + frozen,  # the anchor's forward is in `live`; its backward serves ca and dm
    }


def compare(trainer: Trainer, *, updates: int) -> dict[str, float | int]:
    """Measure both formulations in turn on the same updates.

    Raises:
        RuntimeError: They do not give the same gradient, or do not cost what the formulas say.
    """
    formulations: dict[str, Formulation] = {"plain": plain, "ours": ours}
    for formulation in formulations.values():
        measure(trainer, formulation, update_steps(trainer, 0))  # memory and code are warm from here on
    found: dict[str, list[Measured]] = {name: [] for name in formulations}
    errors = []
    for update in range(updates):
        steps = update_steps(trainer, update)
        for name, formulation in formulations.items():
            found[name].append(measure(trainer, formulation, steps))
            if abs(found[name][-1].units - predicted(steps)[name]) > 1e-6:
                raise RuntimeError(f"{name} cost {found[name][-1].units} units, not {predicted(steps)[name]}")
        gradients = [found[name][-1].gradient for name in formulations]
        errors.append(float((gradients[0] - gradients[1]).norm() / gradients[0].norm()))
    if max(errors) > 1e-4:
        raise RuntimeError(f"the gradients differ by {max(errors):.1e}")
    return _summary(found, max(errors))


def _summary(found: dict[str, list[Measured]], error: float) -> dict[str, float | int]:
    seconds = {name: sum(m.seconds for m in values) for name, values in found.items()}
    units = {name: statistics.fmean(m.units for m in values) for name, values in found.items()}
    ratios = [b.seconds / a.seconds for a, b in zip(found["plain"], found["ours"], strict=True)]
    return {
        "updates": len(ratios),
        "plain_seconds_per_update": round(seconds["plain"] / len(ratios), 4),
        "ours_seconds_per_update": round(seconds["ours"] / len(ratios), 4),
        "time_ratio": round(seconds["ours"] / seconds["plain"], 4),
        "time_ratio_median_of_pairs": round(statistics.median(ratios), 4),
        "plain_units": round(units["plain"], 3),
        "ours_units": round(units["ours"], 3),
        "unit_ratio": round(units["ours"] / units["plain"], 4),
        "unit_ratio_expected": round(EXPECTED["ours"] / EXPECTED["plain"], 4),
        "gradient_relative_difference": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The plain formulation against ours, in turn, on the same draws.")
    parser.add_argument("--updates", type=int, default=20, help="student updates of each")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with bench_trainer("digits") as trainer:
        print(json.dumps(compare(trainer, updates=arguments.updates), indent=2))


if __name__ == "__main__":
    main()
