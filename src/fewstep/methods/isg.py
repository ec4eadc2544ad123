"""Intra-segment guidance (SenseFlow): a step across a segment must end where a guided detour through its inside ends.

It walks its own fixed grid: under a random schedule most segments are narrower than its margins.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow, objectives
from fewstep.core.conditioning import PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import ToSigma, with_final_zero
from fewstep.methods.companions import IntraSegmentGuidance
from fewstep.methods.draws import SegmentDraws
from fewstep.methods.simulation import Velocity, simulate_to_anchor

GuidedVelocity = Callable[[NoisyLatent, PromptBatch, float], Tensor]
"""The teacher's velocity at a guidance scale, as its pipeline guides."""


def segment_grid(term: IntraSegmentGuidance, to_sigma: ToSigma) -> Float[Tensor, "k1"]:
    """The grid's noise levels with the final 0.

    Raises:
        ValueError: A segment is narrower than both margins.
    """
    grid = with_final_zero(to_sigma(torch.tensor(term.levels, dtype=torch.float32)))
    widths = grid[:-1] - grid[1:]
    if widths.min() < 2 * term.margin - 1e-6:
        levels = [round(level, 4) for level in grid.tolist()]
        raise ValueError(
            f"terms.isg.margin is {term.margin}, but the narrowest segment of the grid {levels} "
            f"is {widths.min():.4f} wide; a margin of at most half of that fits"
        )
    return grid


def isg_losses(
    term: IntraSegmentGuidance,
    *,
    student: Velocity,
    guided_teacher: GuidedVelocity,
    prompts: PromptBatch,
    draws: SegmentDraws,
    to_sigma: ToSigma,
    initial_scale: float,
) -> Float[Tensor, "b"]:
    """Compare the student's step across its segment with a detour that the guided teacher begins.

    x_mid    = x_i + (sigma_mid - sigma_i) velocity_teacher(x_i; w)
    x_target = stop_gradient(x_mid + (sigma_next - sigma_mid) velocity_student(x_mid))
    x_pred   = x_i + (sigma_next - sigma_i) velocity_student(x_i)
    loss     = mean (sqrt((x_pred - x_target)^2 + 1e-6) - 1e-3)                     [eq:isg]
    """
    device = draws.initial_noise.device
    grid = segment_grid(term, to_sigma).to(device)
    levels = grid[:-1].expand(len(draws.anchor), -1)
    start, _ = simulate_to_anchor(
        student,
        draws.initial_noise * initial_scale,
        levels,
        prompts.student,
        anchor=draws.anchor,
        num_calls=draws.num_calls,
    )
    sigma_next = grid[1:][torch.tensor(draws.anchor, device=device)]
    with torch.no_grad():
        low, high = sigma_next + term.margin, start.sigma - term.margin
        sigma_mid = low + draws.mid_u * (high - low)
        weight = term.guidance.low + draws.guidance_u * (term.guidance.high - term.guidance.low)
        velocity = guided_teacher(start, prompts, weight)
        x_mid = flow.euler_step(start.x_sigma, velocity, sigma=start.sigma, sigma_next=sigma_mid)
        velocity = student(NoisyLatent(x_mid, sigma_mid), prompts.student)
        x_target = flow.euler_step(x_mid, velocity, sigma=sigma_mid, sigma_next=sigma_next)
    velocity = student(start, prompts.student)
    x_pred = flow.euler_step(start.x_sigma, velocity, sigma=start.sigma, sigma_next=sigma_next)
    return objectives.pseudo_huber(x_pred, x_target)
