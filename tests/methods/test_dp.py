from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.flow import time_shift
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import FixedSchedule
from fewstep.methods.cdm import simulate, student_losses
from fewstep.methods.companions import DiversityPreservation, IntraSegmentGuidance
from fewstep.methods.dp import dp_losses
from fewstep.methods.simulation import Velocity
from fewstep.methods.terms import DistributionMatching, Terms
from tests.methods.toy import ToyVelocity, draws, labels, method
from tests.oracles import Gaussian

COND, NULL = labels([0, 1, 0, 1, 0, 1]), labels([2] * 6)
PROMPTS = PromptBatch(student=COND, teacher=COND, positive=COND, negative=NULL)


def shifted(level: Tensor) -> Tensor:
    return time_shift(level, 3.0)


def guided(teacher: Velocity) -> Any:
    def velocity(point: NoisyLatent, prompts: PromptBatch, scale: float) -> Tensor:
        null = teacher(point, prompts.negative)
        return null + scale * (teacher(point, prompts.teacher) - null)

    return velocity


def loss_of(student: Velocity, teacher: Velocity, initial: Tensor, **settings: Any) -> Tensor:
    return dp_losses(
        DiversityPreservation(**settings),
        student=student,
        guided_teacher=guided(teacher),
        prompts=PROMPTS,
        initial=initial,
        to_sigma=shifted,
    )


def test_the_first_step_of_a_gaussian_teacher_is_the_known_one() -> None:
    """Its trajectory from z is (1 - sigma) m + sqrt((1 - sigma)^2 s^2 + sigma^2) z, so the chord is known."""
    data, z = Gaussian(mean=0.7, std=0.4), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    sigma = 0.9  # of level .75 under shift 3
    at_end = (1 - sigma) * 0.7 + ((1 - sigma) ** 2 * 0.4**2 + sigma**2) ** 0.5 * z
    chord = (z - at_end) / (1 - sigma)

    def off_by(error: float) -> Velocity:
        return lambda point, cond: chord + error

    def teacher(point: NoisyLatent, cond: Conditioning) -> Tensor:
        return data.velocity(point)

    one, many = (loss_of(off_by(0.0), teacher, z, steps=steps, guidance_scale=1.0) for steps in (1, 64))
    assert many.max() < 1e-6 and one.max() < 0.1
    error = loss_of(off_by(0.5), teacher, z, steps=64, guidance_scale=1.0)
    torch.testing.assert_close(error, torch.full((6,), 0.25), rtol=2e-3, atol=0)


class Bent(nn.Module):
    """A velocity field that bends and hears the prompt, with one weight, in float64."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def at(self, x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
        told = cond.tensors["label"].double() @ torch.tensor([[0.2], [-0.6], [0.1]], dtype=torch.float64)
        velocity: Tensor = (self.weight * x).tanh() + sigma**2 * x + self.weight * told
        return velocity

    def forward(self, point: NoisyLatent, cond: Conditioning) -> Tensor:
        return self.at(point.x_sigma.double(), float(point.sigma[0]), cond).float()


def test_loss_and_gradient_are_those_of_the_formula_written_out() -> None:
    initial = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    student, teacher, plain = Bent(0.7), Bent(1.3), Bent(0.7)
    x = initial.double()
    # levels 1, .8, .6, .4 under shift 3
    for sigma, after in ((1.0, 12 / 13), (12 / 13, 9 / 11), (9 / 11, 2 / 3)):
        null, cond = teacher.at(x, sigma, NULL), teacher.at(x, sigma, COND)
        x = x + (after - sigma) * (null + 2.5 * (cond - null))
    target = ((initial.double() - x) / (1 - 2 / 3)).detach()
    expected = (plain.at(initial.double(), 1.0, COND) - target).square().mean(1)
    actual = loss_of(student, teacher, initial, to=0.4, steps=3, guidance_scale=2.5)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-6)
    expected.mean().backward()
    actual.mean().backward()
    assert student.weight.grad is not None and plain.weight.grad is not None
    torch.testing.assert_close(student.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-6)
    assert teacher.weight.grad is None


def test_the_number_of_calls_is_that_of_the_settings() -> None:
    student, teacher = ToyVelocity(seed=1), ToyVelocity(seed=2)
    loss_of(student, teacher, torch.zeros(6, 2), steps=3).sum().backward()
    assert student.calls == [6] and teacher.calls == [6] * 2 * 3
    assert all(p.grad is not None for p in student.parameters())


def test_it_looks_at_the_noise_of_the_simulation_and_no_other_term_at_the_first_level() -> None:
    term = DiversityPreservation(guidance_scale=1.0)
    of = method(Terms(dm=DistributionMatching(), dp=term), schedule=FixedSchedule())
    drawn = draws(of, step=1, first_anchor=of.terms.first_anchor)
    student, teacher, fake = ToyVelocity(seed=1), ToyVelocity(seed=2), ToyVelocity(seed=3)
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=lambda point, prompts, scale: teacher(point, prompts.teacher),
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    assert simulated.anchored.point.sigma.max() <= 0.75
    # one call at the anchors, one at the first level; all samples make the simulation's first step
    assert student.calls[0] == 6 and len(student.calls) == drawn.num_simulation_calls + 2
    own = dp_losses(
        term,
        student=student,
        guided_teacher=lambda point, prompts, scale: teacher(point, prompts.teacher),
        prompts=PROMPTS,
        initial=drawn.initial_noise,
        to_sigma=lambda level: level,
    )
    torch.testing.assert_close(losses["dp"], own)


def test_it_has_a_weight_and_a_graph_of_its_own() -> None:
    terms = Terms(dm=DistributionMatching(), isg=IntraSegmentGuidance(), dp=DiversityPreservation())
    assert terms.weights() == {"dm": 1.0, "isg": 0.5, "dp": 0.05}
    assert terms.graphs() == [("dm",), ("dp",), ("isg",)]


@pytest.mark.parametrize("to", [0.0, 1.0])
def test_an_end_where_no_step_leads_is_refused(to: float) -> None:
    with pytest.raises(ValueError, match=rf"to is {to}; it must be below 1"):
        DiversityPreservation(to=to)
