"""Backward simulation: the student draws from pure noise, and each sample stops at its own anchor.

States behind the anchors are computed only when a term asks for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import with_final_zero

Velocity = Callable[[NoisyLatent, Conditioning], Tensor]
"""A role's network as a function: where it is asked, about which prompts; answers noise - x0 in float32."""


@dataclass(frozen=True)
class Trajectory:
    """What a backward simulation hands to the losses.

    Attributes:
        anchor: Each sample's state at its anchor.
        last_anchor: State at the last anchor of the schedule, or None when it was not simulated.
        final: The finished samples at sigma 0, or None when they were not simulated.
    """

    anchor: NoisyLatent
    last_anchor: NoisyLatent | None = None
    final: Float[Tensor, "b *latent"] | None = None


@torch.no_grad()
def simulate_to_anchor(
    student: Velocity,
    initial: Float[Tensor, "b *latent"],
    sigmas: Float[Tensor, "b k"],
    cond: Conditioning,
    *,
    anchor: tuple[int, ...],
    num_calls: int,
) -> Trajectory:
    """Run the student from the first noise level to each sample's anchor; finished samples leave the batch.

    A sample whose anchor has index i takes i network calls here and one more at the anchor, on average (N + 1) / 2
    instead of N, with the same states to rounding. [eq:simulation-cost]

    Args:
        student: The student without guidance.
        initial: States at ``sigmas[:, 0]``.
        sigmas: Descending noise levels per sample, without the final 0.
        cond: Prompts of the samples.
        anchor: Index of each sample's anchor, 0 for the first level.
        num_calls: Network calls to make, at least ``max(anchor)``; the same number on every process.
    """
    order = sorted(range(len(anchor)), key=lambda j: -anchor[j])  # the live samples are always a prefix
    rows = torch.tensor(order, device=initial.device)
    x, sigmas_sorted, cond_sorted = initial.float()[rows], sigmas[rows], cond.rows(rows)
    for k in range(num_calls):
        # a process without live samples makes a one-sample call and drops it: unequal call counts deadlock FSDP2
        live = sum(anchor[j] > k for j in order)
        take = slice(0, max(live, 1))
        point = NoisyLatent(x[take], sigmas_sorted[take, k])
        velocity = student(point, cond_sorted.rows(take))
        if live:
            step_to = sigmas_sorted[take, k + 1]
            x[take] = flow.euler_step(point.x_sigma, velocity, sigma=point.sigma, sigma_next=step_to)
    back = torch.argsort(rows)
    index = torch.tensor(anchor, device=initial.device)
    return Trajectory(NoisyLatent(x[back], sigmas.gather(1, index[:, None])[:, 0]))


@torch.no_grad()
def simulate_whole(
    student: Velocity,
    initial: Float[Tensor, "b *latent"],
    sigmas: Float[Tensor, "b k"],
    cond: Conditioning,
    *,
    anchor: tuple[int, ...],
) -> Trajectory:
    """Run the student to sigma 0 and keep the states that terms with wider needs ask for."""
    x, states = initial.float(), []
    levels = with_final_zero(sigmas)
    for k in range(sigmas.shape[1]):
        states.append(x)
        velocity = student(NoisyLatent(x, levels[:, k]), cond)
        x = flow.euler_step(x, velocity, sigma=levels[:, k], sigma_next=levels[:, k + 1])
    index = torch.tensor(anchor, device=initial.device)
    at_anchor = torch.stack(states)[index, torch.arange(len(anchor), device=initial.device)]
    return Trajectory(
        anchor=NoisyLatent(at_anchor, sigmas.gather(1, index[:, None])[:, 0]),
        last_anchor=NoisyLatent(states[-1], sigmas[:, -1]),
        final=x,
    )
