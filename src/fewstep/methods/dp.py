"""Diversity-preserved distillation (DP-DMD): where the first step leads is the teacher's choice, and no other term's.

Distribution matching lets a student leave out what the teacher draws seldom, and most of that is decided in the first
step. Here that step is a regression instead. Simulation has no gradient, so none of a later step reaches it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow
from fewstep.core.conditioning import PromptBatch
from fewstep.core.points import NoisyLatent, extrapolate
from fewstep.core.schedules import ToSigma
from fewstep.methods.companions import DiversityPreservation
from fewstep.methods.isg import GuidedVelocity
from fewstep.methods.simulation import Velocity


def dp_losses(
    term: DiversityPreservation,
    *,
    student: Velocity,
    guided_teacher: GuidedVelocity,
    prompts: PromptBatch,
    initial: Float[Tensor, "b *latent"],
    to_sigma: ToSigma,
) -> Float[Tensor, "b"]:
    """Regress the student's first velocity on the teacher's mean one over its first steps from the same noise.

        x_{k+1} = x_k + (sigma_{k+1} - sigma_k) velocity_teacher(x_k; guidance)         k = 0..K-1, x_0 initial
        loss    = mean (velocity_student(x_0) - (x_0 - x_K) / (sigma_0 - sigma_K))^2    [eq:dp]

    The number of network calls is that of the settings: K of the teacher, each of both branches where it is guided,
    and one of the student.

    Args:
        initial: States at the largest noise level, those that the simulation begins with.
    """
    grid = to_sigma(torch.tensor(term.levels, dtype=torch.float32, device=initial.device))
    levels = grid.expand(len(initial), -1).unbind(1)
    start = point = NoisyLatent(initial.float(), levels[0])
    with torch.no_grad():
        for sigma_next in levels[1:]:
            velocity = guided_teacher(point, prompts, term.guidance_scale)
            point = extrapolate(point, velocity, sigma=sigma_next)
        target = flow.mean_velocity(start.x_sigma, point.x_sigma, sigma=start.sigma, sigma_next=point.sigma)
    return (student(start, prompts.student).float() - target).square().flatten(1).mean(1)
