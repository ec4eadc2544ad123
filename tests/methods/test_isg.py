import pytest
import torch
from torch import Tensor

from fewstep.core.conditioning import PromptBatch
from fewstep.core.flow import time_shift
from fewstep.core.points import NoisyLatent
from fewstep.methods.cdm import simulate, student_losses
from fewstep.methods.companions import IntraSegmentGuidance
from fewstep.methods.draws import Draws, SegmentDraws, Streams
from fewstep.methods.isg import isg_losses, segment_grid
from fewstep.methods.terms import DistributionMatching, Terms
from tests.methods.toy import ToyVelocity, labels, method

COND, NULL = labels([0, 1, 0, 1]), labels([2] * 4)
PROMPTS = PromptBatch(student=COND, teacher=COND, positive=COND, negative=NULL)
TERM = IntraSegmentGuidance(guidance={"low": 2.0, "high": 4.0})


def same_level(level: Tensor) -> Tensor:
    return level


def drawn(anchor: tuple[int, ...]) -> SegmentDraws:
    generator = torch.Generator().manual_seed(0)
    return SegmentDraws(
        initial_noise=torch.randn(4, 2, generator=generator),
        anchor=anchor,
        num_calls=max(anchor),
        mid_u=torch.rand(4, generator=generator),
        guidance_u=0.25,
    )


def loss_of(student: ToyVelocity, teacher: ToyVelocity, draws: SegmentDraws) -> Tensor:
    def guided(point: NoisyLatent, prompts: PromptBatch, scale: float) -> Tensor:
        null = teacher(point, prompts.negative)
        return null + scale * (teacher(point, prompts.teacher) - null)

    return isg_losses(
        TERM,
        student=student,
        guided_teacher=guided,
        prompts=PROMPTS,
        draws=draws,
        to_sigma=same_level,
        initial_scale=1.0,
    )


def test_the_loss_is_the_formula_written_out() -> None:
    student, teacher, draws = ToyVelocity(seed=1), ToyVelocity(seed=2), drawn((0, 0, 0, 0))
    x, sigma = draws.initial_noise, torch.ones(4)
    mid = 0.8 + draws.mid_u * 0.15  # inside (.75, 1), at least .05 from both ends
    start = NoisyLatent(x, sigma)
    null, cond = teacher(start, NULL), teacher(start, COND)
    x_mid = x + (mid - 1)[:, None] * (null + 2.5 * (cond - null))  # 2 + .25 (4 - 2)
    target = x_mid + (0.75 - mid)[:, None] * student(NoisyLatent(x_mid, mid), COND)
    prediction = x - 0.25 * student(start, COND)
    expected = (((prediction - target).square() + 1e-6).sqrt() - 1e-3).mean(1)
    torch.testing.assert_close(loss_of(student, teacher, draws), expected)


def test_only_the_step_across_the_segment_has_a_gradient() -> None:
    student, teacher = ToyVelocity(seed=1), ToyVelocity(seed=2)
    loss_of(student, teacher, drawn((0, 1, 2, 3))).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    # the walk (3 calls), the detour's end, the step itself
    assert student.calls == [3, 2, 1, 4, 4]


def test_a_margin_that_leaves_no_room_is_refused() -> None:
    narrow = IntraSegmentGuidance(margin=0.06)
    with pytest.raises(ValueError, match=r"terms.isg.margin is 0.06, but the narrowest segment .* is 0.1000 wide"):
        segment_grid(narrow, lambda level: time_shift(level, 3.0))


def test_the_published_margin_fits_the_sd3_grid() -> None:
    grid = segment_grid(IntraSegmentGuidance(), lambda level: time_shift(level, 3.0))
    torch.testing.assert_close(grid, torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))


def test_a_range_of_guidance_is_ordered() -> None:
    with pytest.raises(ValueError, match=r"low is 4.0, above high, which is 2.0"):
        IntraSegmentGuidance(guidance={"low": 4.0, "high": 2.0})


def test_any_recipe_may_switch_it_on() -> None:
    of = method(Terms(dm=DistributionMatching(), isg=TERM))
    draws = Draws.for_step(
        Streams(0),
        1,
        schedule=of.schedule,
        latent_shape=(2,),
        positions=range(4),
        concurrent=range(4),
        terms=of.terms,
    )
    student, teacher, fake = ToyVelocity(seed=1), ToyVelocity(seed=2), ToyVelocity(seed=3)
    simulated = simulate(of, student, PROMPTS, draws, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=lambda point, prompts, scale: teacher(point, prompts.teacher),
        simulated=simulated,
        prompts=PROMPTS,
        draws=draws,
    )
    assert set(losses) == {"dm", "isg"} and of.terms.weights() == {"dm": 1.0, "isg": 0.5}
    assert losses["isg"].shape == (4,) and losses["isg"].isfinite().all()
