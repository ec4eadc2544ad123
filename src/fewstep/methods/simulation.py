"""Backward simulation: the student draws from pure noise, and each sample stops at its own anchor.

States behind the anchors are computed only when a term asks for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent, Step, step_down
from fewstep.section import Section

Velocity = Callable[[NoisyLatent, Conditioning], Tensor]
"""A role's network as a function: where it is asked, about which prompts; answers noise - x0 in float32."""

SimulatedX0 = Literal["entering", "leaving", "final"]
"""A clean latent of the simulation: predicted one anchor before, at the anchor, or the finished sample."""


class SimulationConfig(Section):
    """How the student draws, in its backward simulation and as a sampler, and who shares an anchor; as released."""

    step: Step = Field(
        default="euler", description="to the next noise level: along the velocity, or with fresh noise on predicted x0"
    )
    anchors: Literal["shared", "own"] = Field(
        default="shared", description="own: fake_score and every term look at anchors of their own (costs more calls)"
    )


@dataclass(frozen=True, eq=False)
class Anchored:
    """What the simulation found at each sample's anchor; two are the same only if they are one object.

    Attributes:
        point: The state at the anchor.
        velocity: The student's answer there.
        x0_entering: The student's data prediction one anchor before; at the first anchor, the initial state.
    """

    point: NoisyLatent
    velocity: Float[Tensor, "b *latent"]
    x0_entering: Float[Tensor, "b *latent"]

    @property
    def x0_leaving(self) -> Float[Tensor, "b *latent"]:
        """The student's data prediction at its anchor, detached."""
        return self.point.x0(self.velocity).detach()

    def where(self, rows: Tensor, other: "Anchored") -> "Anchored":
        """These samples where ``rows`` is true, those of ``other`` elsewhere."""

        def choose(own: Tensor, others: Tensor) -> Tensor:
            return torch.where(rows.reshape(-1, *(1,) * (own.ndim - 1)), own, others)

        return Anchored(
            NoisyLatent(
                choose(self.point.x_sigma, other.point.x_sigma),
                choose(self.point.sigma, other.point.sigma),
            ),
            choose(self.velocity, other.velocity),
            choose(self.x0_entering, other.x0_entering),
        )


@dataclass(frozen=True)
class Simulated:
    """What a backward simulation hands to the losses, whoever looks at it.

    Attributes:
        anchored: At the anchors of the fake score, which are those of all terms without their own.
        own: At the anchors of the terms that have their own, by name.
        last: At the last anchor of the schedule, or None when it was not simulated.
    """

    anchored: Anchored
    own: Mapping[str, Anchored] = field(default_factory=dict)
    last: Anchored | None = None

    def seen_by(self, use: str) -> Anchored:
        """What ``fake_score`` or a term, by its name, finds at its anchors."""
        return self.own.get(use, self.anchored)

    def x0(self, which: SimulatedX0, use: str) -> Float[Tensor, "b *latent"]:
        """A clean latent of the simulation as ``fake_score`` or a term, by its name, finds it; detached."""
        if which == "final":
            assert self.last is not None
            return self.last.x0_leaving
        anchored = self.seen_by(use)
        return anchored.x0_entering if which == "entering" else anchored.x0_leaving


@torch.no_grad()
def simulate_to_anchor(
    student: Velocity,
    initial: Float[Tensor, "b *latent"],
    sigmas: Float[Tensor, "b k"],
    cond: Conditioning,
    *,
    anchor: tuple[int, ...],
    num_calls: int,
    step_noise: Float[Tensor, "b k1 *latent"] | None = None,
) -> tuple[NoisyLatent, Float[Tensor, "b *latent"]]:
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
        step_noise: Noise of each step that re-noises; None makes Euler steps.

    Returns:
        The states at the anchors, and the data predictions that they were stepped to from (``x0_entering``).
    """
    order = sorted(range(len(anchor)), key=lambda j: -anchor[j])  # the live samples are always a prefix
    rows = torch.tensor(order, device=initial.device)
    x, sigmas_sorted, cond_sorted = initial.float()[rows], sigmas[rows], cond.rows(rows)
    x0 = x.clone()
    for k in range(num_calls):
        # a process without live samples makes a one-sample call and drops it: unequal call counts deadlock FSDP2
        live = sum(anchor[j] > k for j in order)
        take = slice(0, max(live, 1))
        point = NoisyLatent(x[take], sigmas_sorted[take, k])
        velocity = student(point, cond_sorted.rows(take))
        if live:
            noise = None if step_noise is None else step_noise[rows[take], k]
            x0[take] = point.x0(velocity)
            x[take] = step_down(point, velocity, sigma_next=sigmas_sorted[take, k + 1], noise=noise).x_sigma
    back = torch.argsort(rows)
    index = torch.tensor(anchor, device=initial.device)
    return NoisyLatent(x[back], sigmas.gather(1, index[:, None])[:, 0]), x0[back]


@torch.no_grad()
def simulate_whole(
    student: Velocity,
    initial: Float[Tensor, "b *latent"],
    sigmas: Float[Tensor, "b k"],
    cond: Conditioning,
    *,
    anchors: Sequence[tuple[int, ...]],
    step_noise: Float[Tensor, "b k1 *latent"] | None = None,
) -> tuple[list[Anchored], Anchored]:
    """Run the student down all noise levels, one call each; no sample leaves early.

    Args:
        anchors: Index of each sample's anchor, for each who looks there.

    Returns:
        What was found at the anchors of each, and at the last anchor of the schedule; without gradient.
    """
    indices = [torch.tensor(anchor, device=initial.device) for anchor in anchors]
    point, x0 = NoisyLatent(initial.float(), sigmas[:, 0]), initial.float()
    here = Anchored(point, student(point, cond), x0)
    found = [replace(here) for _ in indices]  # one object for each: only who shares an anchor shares a forward there
    for k in range(1, sigmas.shape[1]):
        noise = None if step_noise is None else step_noise[:, k - 1]
        point = step_down(here.point, here.velocity, sigma_next=sigmas[:, k], noise=noise)
        here = Anchored(point, student(point, cond), here.x0_leaving)
        found = [here.where(index == k, before) for index, before in zip(indices, found, strict=True)]
    return found, here
