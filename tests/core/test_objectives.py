from typing import Any

import pytest
import torch

from fewstep.core import flow, objectives
from fewstep.core.points import NoisyLatent, renoise
from tests.golden import functions, values
from tests.oracles import Gaussian, Mixture

CASES = ["nchw", "packed", "clip_active", "clip_high"]


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_direction_vanishes_when_student_matches_teacher() -> None:
    x0 = latents(4, 8)
    assert objectives.distribution_matching(x0, x0).abs().max() == 0


def test_the_direction_between_two_gaussians_is_the_known_one() -> None:
    teacher, fake = Gaussian(1.0, 0.5), Gaussian(-0.5, 0.5)
    sigma = torch.tensor([0.1, 0.5, 0.9])
    probe = renoise(latents(3, 6), sigma=sigma, noise=latents(3, 6, seed=1))
    direction = objectives.distribution_matching(probe.x0(teacher.velocity(probe)), probe.x0(fake.velocity(probe)))
    expected = 1.5 * sigma**2 / ((1 - sigma) ** 2 * 0.25 + sigma**2)
    torch.testing.assert_close(direction, expected[:, None].expand(3, 6), atol=1e-5, rtol=1e-5)


def test_the_direction_between_a_mixture_and_one_of_its_modes_points_to_the_other() -> None:
    means = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    teacher, fake = Mixture(means, 0.1), Mixture(means[:1], 0.1)
    probe = NoisyLatent(torch.zeros(1, 2), torch.tensor([0.5]))
    direction = objectives.distribution_matching(teacher.x0(probe), fake.x0(probe))
    assert direction[0, 0] < 0 and direction[0, 1].abs() < 1e-6


@pytest.mark.parametrize("normaliser", [0.1, 2.0])
def test_the_gradient_of_a_pull_is_minus_twice_the_normalised_direction(normaliser: float) -> None:
    x0_student = latents(2, 3, 4).requires_grad_()
    direction = latents(2, 3, 4, seed=1)
    objectives.pull(x0_student, direction, torch.full((2,), normaliser)).sum().backward()
    torch.testing.assert_close(x0_student.grad, -2 * direction / normaliser / 12)  # mean over 12 elements


def test_scaling_a_direction_scales_the_gradient() -> None:
    direction, floor = latents(2, 6, seed=1), torch.ones(2)
    gradients = []
    for factor in (1.0, 3.0):
        x0_student = latents(2, 6).requires_grad_()
        objectives.pull(x0_student, factor * direction, floor).sum().backward()
        gradients.append(x0_student.grad)
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


def test_permuting_the_batch_permutes_the_loss() -> None:
    order = torch.tensor([2, 0, 1])
    x0, reference = latents(3, 5), latents(3, 5, seed=1)
    direction = latents(3, 5, seed=2)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        scale = objectives.normaliser(reference[rows], x0[rows])
        return objectives.pull(x0[rows], direction[rows], scale)

    torch.testing.assert_close(loss(torch.arange(3))[order], loss(order))


@pytest.mark.parametrize(
    ("over", "shape", "axes"),
    [
        ("sample", (2, 3, 4, 5), (1, 2, 3)),
        ("sample", (2, 6, 4), (1, 2)),
        ("token", (2, 3, 4, 5), (1,)),
        ("token", (2, 3, 2, 4, 5), (1,)),
        ("token", (2, 6, 4), (2,)),
    ],
)
def test_a_renormalised_direction_leads_to_a_prediction_of_the_same_length(
    over: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    direction, x0_cond = (scale * torch.randn(shape, generator=generator) for scale in (7.0, 1.0))
    guided = x0_cond + objectives.renormalised(direction, x0_cond, over=over)
    raw = x0_cond + direction

    def length(x0: torch.Tensor) -> torch.Tensor:
        return x0.square().sum(axes, keepdim=True).sqrt()

    torch.testing.assert_close(length(guided), length(x0_cond), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guided / length(guided), raw / length(raw), rtol=1e-4, atol=1e-5)


def test_renormalising_leaves_no_direction_where_guidance_only_lengthens() -> None:
    x0_cond = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for over in ("sample", "token"):
        direction = objectives.renormalised(2.5 * x0_cond, x0_cond, over=over)  # type: ignore[arg-type]
        torch.testing.assert_close(direction, torch.zeros_like(direction), rtol=0, atol=1e-6)


def test_nothing_to_renormalise_gives_numbers() -> None:
    nothing = torch.zeros(1, 2, 3, 3)
    assert torch.equal(objectives.renormalised(nothing, nothing, over="token"), nothing)


def test_a_warm_up_does_not_start_at_zero_and_ends_whole() -> None:
    assert [objectives.warmed_up(k, 4) for k in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert objectives.warmed_up(0, 0) == objectives.warmed_up(0, 1) == 1.0


def test_a_group_shares_the_normaliser_that_the_mean_of_its_errors_gives() -> None:
    reference = torch.tensor([[1.0, -3.0], [5.0, -1.0], [0.01, 0.01], [0.03, 0.03]])
    of_groups = [objectives.normaliser(reference, torch.zeros(4, 2), group=group).tolist() for group in (2, 4)]
    assert of_groups[0] == pytest.approx([2.5, 2.5, 0.1, 0.1])
    assert of_groups[1] == pytest.approx([(2 + 3 + 0.01 + 0.03) / 4] * 4)


def test_directions_keep_their_proportions_within_a_group_only() -> None:
    """Of a pull to the reference itself, the exact direction: as long as the error is large."""
    x0, reference = torch.zeros(2, 3), torch.tensor([[1.0] * 3, [4.0] * 3])
    moved = {}
    for group in (1, 2):
        asked = x0.clone().requires_grad_()
        size = objectives.normaliser(reference, x0, group=group)
        objectives.pull(asked, reference - x0, size).sum().backward()
        assert asked.grad is not None
        moved[group] = (asked.grad[1] / asked.grad[0]).mean().item()
    assert moved == pytest.approx({1: 1.0, 2: 4.0})


def test_the_normaliser_is_per_sample_and_floored() -> None:
    reference = torch.tensor([[1.0, -3.0], [0.01, 0.01]])
    scale = objectives.normaliser(reference, torch.zeros(2, 2))
    torch.testing.assert_close(scale, torch.tensor([2.0, 0.1]))


def test_denoising_is_least_at_the_exact_velocity() -> None:
    data = Gaussian(0.3, 0.6)
    x0, noise = 0.3 + 0.6 * latents(2000, 4), latents(2000, 4, seed=1)
    sigma = torch.rand(2000, generator=torch.Generator().manual_seed(2))
    point = renoise(x0, sigma=sigma, noise=noise)
    best = data.velocity(point)
    losses = [objectives.denoising(v, x0=x0, noise=noise).mean() for v in (best, best + 0.1, best - 0.1, 1.1 * best)]
    assert losses[0] == min(losses)


def test_the_smooth_difference_is_the_absolute_one_far_from_zero_and_flat_at_it() -> None:
    prediction = torch.tensor([[3.0, -3.0], [0.0, 0.0]]).requires_grad_()
    loss = objectives.pseudo_huber(prediction, torch.zeros(2, 2))
    torch.testing.assert_close(loss.detach(), torch.tensor([3.0 - 1e-3, 0.0]), atol=1e-6, rtol=0)
    loss.sum().backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([[0.5, -0.5], [0.0, 0.0]]), atol=1e-6, rtol=0)


def test_shares_of_the_batch_add_up_to_its_mean() -> None:
    losses = latents(6)
    parts = objectives.weighted_mean(losses[:4], 6) + objectives.weighted_mean(losses[4:], 6)
    torch.testing.assert_close(parts, losses.mean())


def test_losses_are_float32_for_bfloat16_networks() -> None:
    velocity = latents(2, 4).bfloat16()
    assert objectives.denoising(velocity, x0=latents(2, 4), noise=latents(2, 4)).dtype == torch.float32


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("objective", ["cfg", "dm"])
def test_published_losses_and_gradients_are_reproduced(case: str, objective: str) -> None:
    stored = {
        k.removeprefix(f"{case}."): torch.from_numpy(v) for k, v in functions().items() if k.startswith(f"{case}.")
    }
    settings = values()[f"{case}.params"]
    velocity = stored["student_prediction"].clone().requires_grad_()
    probe = NoisyLatent(stored["xt_teacher"], stored["teacher_sigma"].flatten())
    x0_student = flow.x0_from(stored["xt"], velocity, stored["student_sigma"].flatten())
    x0_cond = probe.x0(stored["cond"])
    if objective == "cfg":
        direction = objectives.cfg_augmentation(x0_cond - probe.x0(stored["uncond"]), scale=settings["guidance_scale"])
    else:
        direction = objectives.distribution_matching(x0_cond, probe.x0(stored["fake"]))
    scale = objectives.normaliser(x0_cond, x0_student.detach(), floor=settings["norm_clip_min"])
    per_sample = objectives.pull(x0_student, direction, scale)
    per_sample.mean().backward()
    torch.testing.assert_close(per_sample.detach(), stored[f"{objective}.per_sample"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(per_sample.mean().detach(), stored[f"{objective}.loss"], rtol=1e-4, atol=1e-5)
    assert velocity.grad is not None
    expected = stored[f"{objective}.grad_student_prediction"]
    assert (velocity.grad - expected).norm() / expected.norm() < 1e-5


def test_the_published_fake_score_loss_and_gradient_are_reproduced() -> None:
    stored = {k.removeprefix("ft."): torch.from_numpy(v) for k, v in functions().items() if k.startswith("ft.")}
    velocity = stored["prediction"].clone().requires_grad_()
    loss = objectives.denoising(velocity, x0=stored["x0"], noise=stored["noise"]).mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), stored["loss"], rtol=1e-4, atol=1e-5)
    assert velocity.grad is not None
    assert (velocity.grad - stored["grad_prediction"]).norm() / stored["grad_prediction"].norm() < 1e-5


@pytest.mark.parametrize("case", ["teacher_nan", "teacher_inf"])
def test_a_broken_teacher_gives_a_loss_that_is_not_finite_instead_of_a_repaired_one(case: str) -> None:
    stored = {
        k.removeprefix(f"{case}."): torch.from_numpy(v) for k, v in functions().items() if k.startswith(f"{case}.")
    }
    probe = NoisyLatent(stored["xt_teacher"], stored["teacher_sigma"].flatten())
    x0_student = flow.x0_from(stored["xt"], stored["student_prediction"], stored["student_sigma"].flatten())
    direction = objectives.distribution_matching(probe.x0(stored["cond"]), probe.x0(stored["fake"]))
    scale = objectives.normaliser(probe.x0(stored["cond"]), x0_student)
    assert not objectives.pull(x0_student, direction, scale).isfinite().all()
