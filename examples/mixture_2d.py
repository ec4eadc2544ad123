"""CDM on one page: a teacher in closed form, distilled to four steps in well under a minute, with a picture of it.

    python -m examples.mixture_2d [--updates 600] [--output mixture_2d.gif]

The data are eight small Gaussians on a ring; class 0 has the even ones, class 1 the odd ones. Their velocity is known
exactly, so the teacher has no weights and what the student gets wrong is the student's. What trains it is the code that
trains every other model, :mod:`fewstep.methods.cdm`; nothing of the method is written here again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.core import flow
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent, renoise
from fewstep.core.schedules import FOUR_STEPS, RandomLengthSchedule, with_final_zero
from fewstep.core.sigmas import SigmaRange, Uniform
from fewstep.methods.cdm import Method, fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.simulation import Velocity
from fewstep.methods.terms import CfgAugmentation, ContinuousAlignment, DistributionMatching, Terms
from fewstep.roles.averaging import ExponentialMovingAverage, align

RADIUS, STD, BATCH = 1.5, 0.12, 128
ANGLES = torch.arange(8) * torch.pi / 4
MODES = RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
# the modes of class 0, of class 1, and of the empty prompt
MODES_OF = (MODES[0::2], MODES[1::2], MODES)

METHOD = Method(
    schedule=RandomLengthSchedule(max_steps=8),
    terms=Terms(ca=CfgAugmentation(scale=2.0), dm=DistributionMatching(), cdm=ContinuousAlignment()),
    sigma_range=SigmaRange(),
    fake_sigma=Uniform(),
    fake_target="anchor",
    to_sigma=lambda level: level,
)


def one_hot(classes: Tensor) -> Conditioning:
    """What a network is told: class 0, class 1 or, as class 2, nothing."""
    return Conditioning({"label": nn.functional.one_hot(classes, 3).float()})


def teacher(point: NoisyLatent, cond: Conditioning) -> Tensor:
    """The exact velocity ``(x_sigma - E[x0 | x_sigma]) / sigma`` of the class's Gaussians, ``(b, 2)``."""
    answers = torch.stack([_velocity(point, modes) for modes in MODES_OF], dim=1)
    return (answers * cond.tensors["label"][..., None]).sum(1)


def _velocity(point: NoisyLatent, modes: Tensor) -> Tensor:
    s = point.sigma[:, None]
    variance = (1 - s).square() * STD**2 + s.square()
    offsets = point.x_sigma[:, None] - (1 - s[:, None]) * modes
    posterior = torch.softmax(-offsets.square().sum(-1) / (2 * variance), dim=1)
    gain = (1 - s) * STD**2 / variance
    x0 = (posterior[..., None] * (modes + gain[..., None] * offsets)).sum(1)
    return (point.x_sigma - x0) / s


class Network(nn.Module):
    """Student and fake score: a small network of ``x_sigma``, waves of ``sigma`` and the class."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 5 + 3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, point: NoisyLatent, cond: Conditioning) -> Tensor:
        s = point.sigma[:, None]
        waves = [s, (3 * s).sin(), (3 * s).cos(), (9 * s).sin(), (9 * s).cos()]
        velocity: Tensor = self.layers(torch.cat([point.x_sigma, *waves, cond.tensors["label"]], dim=1))
        return velocity


@cache
def start(*, steps: int = 3000, seed: int = 0) -> Network:
    """A network that imitates the teacher, as a pretrained one does: where student and fake score start."""
    torch.manual_seed(seed)
    network, generator = Network(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        classes = torch.randint(3, (BATCH,), generator=generator)
        x0 = real(classes, generator)
        sigma = torch.rand(BATCH, generator=generator).clamp(0.02, 0.98)
        point = renoise(x0, sigma=sigma, noise=torch.randn(BATCH, 2, generator=generator))
        loss = (network(point, one_hot(classes)) - teacher(point, one_hot(classes))).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return network


def real(classes: Tensor, generator: torch.Generator) -> Tensor:
    """Data of the given classes."""
    modes = 2 * torch.randint(4, classes.shape, generator=generator) + (classes == 1)
    free = torch.randint(8, classes.shape, generator=generator)
    chosen = torch.where(classes == 2, free, modes)
    return MODES[chosen] + STD * torch.randn(len(classes), 2, generator=generator)


def draws(generator: torch.Generator, *, updates_student: bool) -> Draws:
    """One step's random numbers from one generator: a run's own streams draw per sample, slow for so small a net."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal() -> Tensor:
        return torch.randn(BATCH, 2, generator=generator)

    low, high = METHOD.schedule.bounds
    num_anchors = int(torch.randint(low, high + 1, (), generator=generator))
    anchor = tuple(torch.randint(num_anchors, (BATCH,), generator=generator).tolist())
    terms = METHOD.terms.active() if updates_student else {}
    return Draws(
        initial_noise=normal(),
        inner_u=uniform(BATCH, num_anchors - 1),
        anchor=anchor,
        num_simulation_calls=max(anchor),
        denoising_u=uniform(BATCH),
        denoising_noise=normal(),
        terms={name: TermDraws(uniform(BATCH), None, uniform(BATCH), normal()) for name in terms},
    )


@dataclass(frozen=True)
class Snapshot:
    """The networks after some student updates; the student is its average, which is what one exports."""

    updates: int
    student: Network
    fake_score: Network


def distil(begin: Network, *, updates: int, of_teacher: Velocity = teacher, seed: int = 1) -> Iterator[Snapshot]:
    """Distil with the released settings, but schedules of at most eight steps; yields before and after every update."""
    student, fake_score = copy.deepcopy(begin), copy.deepcopy(begin)
    students = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    fakes = torch.optim.AdamW(fake_score.parameters(), lr=1e-3, weight_decay=1e-4)
    average, averaged = ExponentialMovingAverage(dict(student.named_parameters()), decay=0.999), copy.deepcopy(begin)
    cond, null = one_hot(torch.arange(BATCH) % 2), one_hot(torch.full((BATCH,), 2))
    prompts = PromptBatch(student=cond, teacher=cond, positive=cond, negative=null)
    generator = torch.Generator().manual_seed(seed)
    yield Snapshot(0, averaged, fake_score)
    for step in range(2 * updates):
        updates_student = step % 2 == 1
        drawn = draws(generator, updates_student=updates_student)
        simulated = simulate(METHOD, student, prompts, drawn, anchor_gradient=updates_student)
        torch.autograd.backward(fake_score_losses(METHOD, fake_score, simulated, prompts, drawn).mean())
        fakes.step()
        fakes.zero_grad()
        align(dict(fake_score.named_parameters()), dict(student.named_parameters()), decay=0.999)
        if updates_student:
            losses = student_losses(
                METHOD,
                student=student,
                teacher=of_teacher,
                fake_score=fake_score,
                guided_teacher=lambda point, prompts, scale: of_teacher(point, prompts.teacher),
                simulated=simulated,
                prompts=prompts,
                draws=drawn,
            )
            torch.autograd.backward(torch.stack([loss.mean() for loss in losses.values()]).sum())
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            students.step()
            students.zero_grad()
            average.update(dict(student.named_parameters()), update=step // 2 + 1)
            averaged.load_state_dict(average.shadow)
            yield Snapshot(step // 2 + 1, averaged, fake_score)


@torch.no_grad()
def path(network: Velocity, classes: Tensor, *, levels: tuple[float, ...] = FOUR_STEPS, seed: int = 5) -> Tensor:
    """The states from noise to picture, ``(steps + 1, b, 2)``: Euler steps through ``levels`` to 0."""
    x = torch.randn(len(classes), 2, generator=torch.Generator().manual_seed(seed))
    states, sigmas = [x], with_final_zero(torch.tensor(levels))
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:], strict=True):
        here, there = sigma.expand(len(x)), sigma_next.expand(len(x))
        x = flow.euler_step(x, network(NoisyLatent(x, here), one_hot(classes)), sigma=here, sigma_next=there)
        states.append(x)
    return torch.stack(states)


@dataclass(frozen=True)
class Quality:
    """How good samples are.

    Attributes:
        right: Share within four standard deviations of a mode of their class.
        modes: Modes that get more than 3 % of the right ones; there are 8.
        variation: Total variation of their histogram from the even one.
        energy: Energy distance to data of the same classes, 0 for equal distributions.
    """

    right: float
    modes: int
    variation: float
    energy: float


def quality(network: Velocity, *, levels: tuple[float, ...] = FOUR_STEPS, count: int = 4096) -> Quality:
    """Draw ``count`` samples of both classes in turn and judge them."""
    classes = torch.arange(count) % 2
    x = path(network, classes, levels=levels)[-1]
    distance, mode = torch.cdist(x, MODES).min(1)
    good = (distance < 4 * STD) & (mode % 2 == classes)
    histogram = torch.bincount(mode[good], minlength=8) / max(int(good.sum()), 1)
    data = real(classes, torch.Generator().manual_seed(6))
    energies = [energy_distance(x[classes == k], data[classes == k]) for k in (0, 1)]
    return Quality(
        good.float().mean().item(),
        int((histogram > 0.03).sum()),
        (histogram - 1 / 8).abs().sum().item() / 2,
        sum(energies) / 2,
    )


def energy_distance(x: Tensor, y: Tensor) -> float:
    """``2 E|x - y| - E|x - x'| - E|y - y'|`` of two sets of points, unbiased."""
    within = [torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - within[0] - within[1])


def main() -> None:
    """Distil, print what came of it, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=600, help="of the student (default %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("mixture_2d.gif"), help="(default %(default)s)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began, begin = time.monotonic(), start()
    fifty = tuple(1 - k / 50 for k in range(50))
    _tell("teacher, 50 steps", quality(teacher, levels=fifty))
    _tell("teacher, 4 steps", quality(teacher))
    _tell("start, 4 steps", quality(begin))
    from examples.mixture_2d_picture import Film

    film = Film(teacher_50=fifty)
    every = max(1, asked.updates // 24)
    for snapshot in distil(begin, updates=asked.updates):
        if snapshot.updates % every == 0:
            film.add(snapshot)
    _tell("student, 4 steps", quality(snapshot.student))
    film.save(asked.output)
    print(f"{asked.output}: {len(film.frames)} frames, {time.monotonic() - began:.0f} s in all")


def _tell(what: str, found: Quality) -> None:
    print(
        f"{what:18} right {found.right:.3f}  modes {found.modes}  variation {found.variation:.3f}  "
        f"energy distance {found.energy:.4f}"
    )


if __name__ == "__main__":
    main()
