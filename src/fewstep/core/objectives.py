"""The objectives: two directions, one pull, one regression. Everything in float32.

A student loss asks the student's answer ``x0_student`` to move by ``direction / normaliser``: it is a regression to
a stopped target, so its gradient with respect to ``x0_student`` is ``-2 direction / normaliser`` per element.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow

NORMALISER_FLOOR = 0.1


def cfg_augmentation(difference: Float[Tensor, "b *latent"], *, scale: float) -> Float[Tensor, "b *latent"]:
    """The direction that engraves the teacher's guidance into the student.

        direction_ca = ca_scale (x0_cond - x0_null)                                     [eq:ca]

    ``scale`` multiplies the raw difference and is not a guidance scale: guidance g would be ``g - 1`` here.

    Args:
        difference: The teacher's ``x0_cond - x0_null`` at the probe, or a backbone's stand-in for it.
        scale: ``ca_scale``.
    """
    return scale * difference.float()


def renormalised(
    direction: Float[Tensor, "b *latent"], x0_cond: Float[Tensor, "b *latent"], *, over: Literal["sample", "token"]
) -> Float[Tensor, "b *latent"]:
    """The direction whose guided prediction is as long as the prediction without guidance.

        direction <- (x0_cond + direction) |x0_cond| / |x0_cond + direction| - x0_cond  [eq:renormalised-guidance]

    Args:
        direction: What guidance adds to the prediction.
        x0_cond: The teacher's prediction without guidance.
        over: Whose length is kept: each sample's, or each token's, a vector over the channels of (b, c, *space) or over
            the last axis of packed latents (b, n, d).
    """
    x0_cond, guided = x0_cond.float(), x0_cond.float() + direction.float()
    axes = tuple(range(1, guided.ndim)) if over == "sample" else (1 if guided.ndim > 3 else -1,)

    def length(x0: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x0, dim=axes, keepdim=True)
        return norm

    shortest = torch.finfo(torch.float32).tiny
    return guided * (length(x0_cond) / length(guided).clamp_min(shortest)) - x0_cond


def distribution_matching(
    x0_teacher: Float[Tensor, "b *latent"], x0_fake: Float[Tensor, "b *latent"]
) -> Float[Tensor, "b *latent"]:
    """The direction from the student's distribution to the teacher's.

        direction_dm = x0_teacher - x0_fake                                             [eq:dm]

    Proportional to the difference of the two scores at the probe, hence zero when the distributions agree there.
    """
    return x0_teacher.float() - x0_fake.float()


def normaliser(
    x0_reference: Float[Tensor, "b *latent"],
    x0_student: Float[Tensor, "b *latent"],
    *,
    floor: float = NORMALISER_FLOOR,
    group: int = 1,
) -> Float[Tensor, "b"]:
    """The size of the student's error, by which a direction is divided.

        normaliser = max(mean |x0_reference - x0_student|, floor)   over all latent axes   [eq:normaliser]

    Of each sample's own, every direction comes out about equally long, however small the error was. Of a group's, one
    that is right already is hardly moved, and one that is far off moves the more.

    Args:
        x0_reference: The prediction that the error is measured from.
        x0_student: The student's answer.
        floor: Least value.
        group: Samples, one after another, over which the mean is taken; they share it. It divides their number.
    """
    error = (x0_reference.float() - x0_student.float()).abs().flatten(1).mean(1)
    if group > 1:
        error = error.reshape(-1, group).mean(1).repeat_interleave(group)
    return error.clamp_min(floor)


def pull(
    x0_student: Float[Tensor, "b *latent"], direction: Float[Tensor, "b *latent"], normaliser: Float[Tensor, "b"]
) -> Float[Tensor, "b"]:
    """Regress the student's answer to where the direction points.

        target = stop_gradient(x0_student + direction / normaliser)
        loss   = mean over the latent axes of (x0_student - target)^2                   [eq:pull]

    Differs: no factor 1/2, as in the released CDM code; DMD2 has one, so its gradients are half as large.

    Returns:
        One loss per sample, float32; their mean over the global batch is the objective.
    """
    x0_student = x0_student.float()
    target = (x0_student + direction / flow.per_sample(normaliser, direction)).detach()
    return (x0_student - target).square().flatten(1).mean(1)


def denoising(
    velocity: Float[Tensor, "b *latent"], *, x0: Float[Tensor, "b *latent"], noise: Float[Tensor, "b *latent"]
) -> Float[Tensor, "b"]:
    """The flow-matching regression by which the fake score follows the student.

    loss = mean over the latent axes of (velocity(x_sigma, sigma) - (noise - x0))^2 [eq:denoising]
    """
    return (velocity.float() - flow.velocity_from(x0, noise)).square().flatten(1).mean(1)


def pseudo_huber(
    prediction: Float[Tensor, "b *latent"], target: Float[Tensor, "b *latent"], *, width: float = 1e-3
) -> Float[Tensor, "b"]:
    """A smooth absolute difference.

    loss = mean over the latent axes of (sqrt((prediction - target)^2 + width^2) - width)   [eq:pseudo-huber]
    """
    difference = prediction.float() - target.float()
    return ((difference.square() + width**2).sqrt() - width).flatten(1).mean(1)


def warmed_up(update: int, warmup: int) -> float:
    """Factor on a weight or a rate at an update, counted from 0: it does not start at zero.

    factor = min(1, (update + 1) / warmup)                                          [eq:warm-up]
    """
    return min(1.0, (update + 1) / warmup) if warmup else 1.0


def weighted_mean(losses: Float[Tensor, "b"], global_batch: int) -> Float[Tensor, ""]:
    """This process's share of the mean over the global batch: shares of all processes add up to the mean."""
    return torch.sum(losses) / global_batch
