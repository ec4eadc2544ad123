"""CDM as a whole on a ring of Gaussians: a sign, a dropped sigma or an untrained fake score shows in the samples."""

from functools import cache

import torch
from torch import Tensor

from fewstep.core import flow
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent, renoise
from fewstep.core.schedules import RandomLengthSchedule, with_final_zero
from fewstep.methods.cdm import fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.simulation import Velocity
from fewstep.roles.averaging import ExponentialMovingAverage, align
from tests.methods.toy import RELEASED, ToyVelocity, labels, method, unguided
from tests.oracles import Mixture

RADIUS, STD, BATCH = 1.5, 0.12, 128
ANGLES = torch.arange(8) * torch.pi / 4
MODES = RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
GRID = torch.tensor([1.0, 0.75, 0.5, 0.25])


def teacher(point: NoisyLatent, cond: Conditioning) -> Tensor:
    """The exact velocity: class 0 has the even modes, class 1 the odd ones, class 2 all."""
    per_class = [Mixture(MODES[0::2], STD), Mixture(MODES[1::2], STD), Mixture(MODES, STD)]
    answers = torch.stack([mixture.velocity(point) for mixture in per_class], dim=1)
    return (answers * cond.tensors["label"][..., None]).sum(1)


@cache
def pretrained() -> ToyVelocity:
    """A network that imitates the teacher: where student and fake score start."""
    network, generator = ToyVelocity(width=64, seed=0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(3000):
        cond = Conditioning({"label": torch.eye(3)[torch.randint(3, (BATCH,), generator=generator)]})
        modes = 2 * torch.randint(4, (BATCH,), generator=generator) + cond.tensors["label"][:, 1].long()
        x0 = MODES[modes] + STD * torch.randn(BATCH, 2, generator=generator)
        sigma = torch.rand(BATCH, generator=generator).clamp(0.02, 0.98)
        point = renoise(x0, sigma=sigma, noise=torch.randn(BATCH, 2, generator=generator))
        loss = (network(point, cond) - teacher(point, cond)).square().mean()
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / 3000)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def quick_draws(generator: torch.Generator, *, updates_student: bool) -> Draws:
    """One step's draws from one generator: the named streams make one per sample, which is slow for a toy network."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal() -> Tensor:
        return torch.randn(BATCH, 2, generator=generator)

    num_anchors = int(torch.randint(1, 9, (), generator=generator))
    anchor = tuple(torch.randint(num_anchors, (BATCH,), generator=generator).tolist())
    terms = ("ca", "dm", "cdm") if updates_student else ()
    return Draws(
        initial_noise=normal(),
        inner_u=uniform(BATCH, num_anchors - 1),
        anchor=anchor,
        num_simulation_calls=max(anchor),
        denoising_u=uniform(BATCH),
        denoising_noise=normal(),
        terms={name: TermDraws(uniform(BATCH), None, uniform(BATCH), normal()) for name in terms},
    )


def distil(student_teacher: Velocity, *, updates: int) -> ToyVelocity:
    """CDM with the released settings, shorter schedules and a small batch; returns the averaged student."""
    of = method(RELEASED, schedule=RandomLengthSchedule(max_steps=8))
    student, fake = pretrained().twin(), pretrained().twin()
    students = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    fakes = torch.optim.AdamW(fake.parameters(), lr=1e-3, weight_decay=1e-4)
    average = ExponentialMovingAverage(dict(student.named_parameters()), decay=0.999)
    cond, null = labels([0, 1] * (BATCH // 2)), labels([2] * BATCH)
    prompts = PromptBatch(student=cond, teacher=cond, positive=cond, negative=null)
    generator = torch.Generator().manual_seed(1)
    for step in range(2 * updates):
        updates_student = step % 2 == 1
        drawn = quick_draws(generator, updates_student=updates_student)
        simulated = simulate(of, student, prompts, drawn, anchor_gradient=updates_student)
        fake_score_losses(of, fake, simulated, prompts, drawn).mean().backward()
        fakes.step()
        fakes.zero_grad()
        align(dict(fake.named_parameters()), dict(student.named_parameters()), decay=0.999)
        if updates_student:
            losses = student_losses(
                of,
                student=student,
                teacher=student_teacher,
                fake_score=fake,
                guided_teacher=unguided,
                simulated=simulated,
                prompts=prompts,
                draws=drawn,
            )
            torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            students.step()
            students.zero_grad()
            average.update(dict(student.named_parameters()), update=step // 2 + 1)
    student.load_state_dict(average.shadow)
    return student


@torch.no_grad()
def quality(network: ToyVelocity) -> tuple[float, int, float]:
    """Four steps: share of samples within 4 std of a mode of their class, modes covered, error of the histogram."""
    count = 4096
    cond = labels([0, 1] * (count // 2))
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(5))
    levels = with_final_zero(GRID)
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        s, s_next = sigma.expand(count), sigma_next.expand(count)
        x = flow.euler_step(x, network(NoisyLatent(x, s), cond), sigma=s, sigma_next=s_next)
    distance, mode = (x[:, None] - MODES).norm(dim=-1).min(1)
    good = (distance < 4 * STD) & (mode % 2 == cond.tensors["label"][:, 1])
    histogram = torch.bincount(mode[good], minlength=8) / good.sum()
    return good.float().mean().item(), int((histogram > 0.03).sum()), (histogram - 1 / 8).abs().sum().item() / 2


def test_four_steps_of_the_student_are_right_where_four_of_its_start_are_not() -> None:
    accuracy_before, _, _ = quality(pretrained())
    accuracy, modes, variation = quality(distil(teacher, updates=300))
    assert accuracy_before < 0.85
    assert accuracy > 0.90 and modes == 8 and variation < 0.08


def test_a_teacher_of_the_wrong_sign_ruins_the_student() -> None:
    def flipped(point: NoisyLatent, cond: Conditioning) -> Tensor:
        return -teacher(point, cond)

    accuracy, _, _ = quality(distil(flipped, updates=60))
    assert accuracy < 0.3
