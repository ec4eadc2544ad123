"""Every random number of one step as one frozen value, named so that nothing depends on the number of processes.

A draw is named by (seed, purpose, step, position in the global batch). What decides the number of network calls
omits the position, so every process knows it. No state is kept: to resume, a step number is enough.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.schedules import Schedule, spread_anchors
from fewstep.methods.terms import Terms


@dataclass(frozen=True)
class Streams:
    """Named random streams of one run: a counter-based generator keyed by a stable hash of the draw's name."""

    seed: int

    def _generator(self, purpose: str, step: int, position: int | None) -> np.random.Generator:
        name = f"{self.seed}/{purpose}/{step}/{'all' if position is None else position}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))

    def integer(
        self,
        purpose: str,
        step: int,
        *,
        low: int,
        high: int,
        position: int | None = None,
        probabilities: Sequence[float] | None = None,
    ) -> int:
        """One integer of low..high, both included; each as likely as any other unless ``probabilities`` are given."""
        generator = self._generator(purpose, step, position)
        if probabilities is None:
            return int(generator.integers(low, high, endpoint=True))
        found = int(np.searchsorted(np.cumsum(probabilities), generator.random(), side="right"))
        return min(low + found, high)  # the sum may end a rounding below 1

    def permutation(self, purpose: str, step: int, count: int) -> list[int]:
        """The numbers 0..count - 1 in random order, the same on every process."""
        return [int(k) for k in self._generator(purpose, step, None).permutation(count)]

    def scalar(self, purpose: str, step: int) -> float:
        """One number uniform in [0, 1), the same for every sample."""
        return float(self._generator(purpose, step, None).random())

    def uniform(self, purpose: str, step: int, positions: Sequence[int], count: int) -> Float[Tensor, "b count"]:
        """``count`` numbers uniform in [0, 1) for each position, float32 on the CPU."""
        rows = [self._generator(purpose, step, j).random(count, dtype=np.float32) for j in positions]
        return torch.from_numpy(np.stack(rows))

    def normal(
        self, purpose: str, step: int, positions: Sequence[int], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *latent"]:
        """Standard normal noise of ``shape`` for each position, float32 on the CPU."""
        rows = [self._generator(purpose, step, j).standard_normal(shape, dtype=np.float32) for j in positions]
        return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class TermDraws:
    """What one loss term draws: raw uniforms for its two noise levels, fresh noise for its probe and its query.

    A noise is None where nothing is re-noised.
    """

    query_u: Float[Tensor, "b"]
    query_noise: Float[Tensor, "b *latent"] | None
    probe_u: Float[Tensor, "b"]
    probe_noise: Float[Tensor, "b *latent"] | None


@dataclass(frozen=True)
class SegmentDraws:
    """What intra-segment guidance draws at one step.

    Attributes:
        initial_noise: Start of the walk down its grid.
        anchor: Index of each sample's segment, on the host.
        num_calls: Network calls of the walk, the same on every process.
        mid_u: Raw uniforms of the place inside the segment.
        guidance_u: Raw uniform of the teacher's guidance scale; one per step.
    """

    initial_noise: Float[Tensor, "b *latent"]
    anchor: tuple[int, ...]
    num_calls: int
    mid_u: Float[Tensor, "b"]
    guidance_u: float


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step for some rows of the global batch.

    Attributes:
        initial_noise: Start of the backward simulation.
        inner_u: Raw uniforms of the inner anchors, N - 1 per sample.
        anchor: Anchor index of each sample, on the host: the fake score's, and of all terms without their own.
        num_simulation_calls: Network calls of the simulation, the largest anchor index of all rows that are
            processed at the same time by any process, so that every process makes equally many.
        denoising_u: Raw uniforms of the fake score's noise levels.
        denoising_noise: Noise of the fake score's regression.
        terms: By term name; empty on a step without a student update.
        segment: Of intra-segment guidance, or None when it is off or the student is not updated.
        term_anchors: Anchor indices of the terms that have their own, by name.
        step_noise: Noise of each step of a simulation that re-noises, N - 1 per sample; None where it makes Euler
            steps.
    """

    initial_noise: Float[Tensor, "b *latent"]
    inner_u: Float[Tensor, "b k1"]
    anchor: tuple[int, ...]
    num_simulation_calls: int
    denoising_u: Float[Tensor, "b"]
    denoising_noise: Float[Tensor, "b *latent"]
    terms: Mapping[str, TermDraws]
    segment: SegmentDraws | None = None
    term_anchors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    step_noise: Float[Tensor, "b k1 *latent"] | None = None

    @property
    def num_anchors(self) -> int:
        """N, the length of this step's schedule."""
        return self.inner_u.shape[1] + 1

    @staticmethod
    def for_step(
        streams: Streams,
        step: int,
        *,
        schedule: Schedule,
        latent_shape: tuple[int, ...],
        positions: Sequence[int],
        concurrent: Sequence[int],
        terms: Terms | None,
        simulation: int | None = None,
        stratified_over: int | None = None,
        own_anchors: Sequence[str] = (),
        first_anchor: int = 0,
        renoises: bool = False,
    ) -> "Draws":
        """Draw what the rows ``positions`` of the global batch need at ``step``.

        Args:
            streams: The run's named streams.
            step: Step number, from 0.
            schedule: Anchor schedule; its length is one draw per step.
            latent_shape: Shape of one latent.
            positions: Rows of the global batch that this process handles now.
            concurrent: Rows that all processes together handle now, this process's own included.
            terms: The loss terms; None when the student is not updated.
            simulation: Number that names the simulation's draws, for steps that share one; None is the step's own.
            stratified_over: Size of the global batch whose anchors are spread evenly over the schedule; None draws
                each sample's alone.
            own_anchors: Names of the terms that look at anchors of their own.
            first_anchor: Smallest index of an anchor; below every length of the schedule.
            renoises: Whether the simulation's steps re-noise.
        """
        number = step if simulation is None else simulation
        own = _Rows(streams, step, positions, latent_shape)
        simulated = replace(own, step=number)
        low, high = schedule.bounds
        # one draw per step, not per sample: unequal call counts would deadlock sharded networks
        num_anchors = streams.integer(
            "num_anchors", number, low=low, high=high, probabilities=schedule.length_probabilities()
        )
        indices = range(first_anchor, num_anchors)
        anchor = _anchors(streams, "anchor", number, indices, stratified_over)
        of_terms = {name: _anchors(streams, f"{name}.anchor", number, indices, stratified_over) for name in own_anchors}
        step_noise = [simulated.normal(f"step_noise.{k}") for k in range(num_anchors - 1)] if renoises else []
        return Draws(
            initial_noise=simulated.normal("initial_noise"),
            inner_u=simulated.uniforms("inner_sigmas", num_anchors - 1),
            anchor=tuple(anchor(j) for j in positions),
            num_simulation_calls=max(anchor(j) for j in concurrent),
            denoising_u=own.uniform("denoising"),
            denoising_noise=own.normal("denoising_noise"),
            terms={} if terms is None else own.terms(terms),
            segment=None if terms is None or terms.isg is None else own.segment(len(terms.isg.levels), concurrent),
            term_anchors={name: tuple(of_term(j) for j in positions) for name, of_term in of_terms.items()},
            step_noise=torch.stack(step_noise, dim=1) if step_noise else None,
        )

    def to(self, device: torch.device | str) -> "Draws":
        """The same numbers on ``device``; drawn on the CPU because devices draw different ones."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        def move_any(value: Tensor | None) -> Tensor | None:
            return None if value is None else move(value)

        def move_term(draws: TermDraws) -> TermDraws:
            query_noise, probe_noise = move_any(draws.query_noise), move_any(draws.probe_noise)
            return TermDraws(move(draws.query_u), query_noise, move(draws.probe_u), probe_noise)

        return replace(
            self,
            initial_noise=move(self.initial_noise),
            inner_u=move(self.inner_u),
            denoising_u=move(self.denoising_u),
            denoising_noise=move(self.denoising_noise),
            terms={name: move_term(draws) for name, draws in self.terms.items()},
            segment=None
            if (segment := self.segment) is None
            else replace(segment, initial_noise=move(segment.initial_noise), mid_u=move(segment.mid_u)),
            step_noise=move_any(self.step_noise),
        )


@dataclass(frozen=True)
class _Rows:
    """Some rows of the global batch at one step, which draw by purpose."""

    streams: Streams
    step: int
    positions: Sequence[int]
    latent_shape: tuple[int, ...]

    def uniforms(self, purpose: str, count: int) -> Float[Tensor, "b count"]:
        return self.streams.uniform(purpose, self.step, self.positions, count)

    def uniform(self, purpose: str) -> Float[Tensor, "b"]:
        return self.uniforms(purpose, 1)[:, 0]

    def normal(self, purpose: str) -> Float[Tensor, "b *latent"]:
        return self.streams.normal(purpose, self.step, self.positions, self.latent_shape)

    def terms(self, terms: Terms) -> dict[str, TermDraws]:
        return {
            name: TermDraws(
                query_u=self.uniform(f"{name}.query"),
                query_noise=self.normal(f"{name}.query_noise") if term.query.needs_noise else None,
                probe_u=self.uniform(f"{name}.probe"),
                probe_noise=self.normal(f"{name}.probe_noise") if term.probe_of != "query" else None,
            )
            for name, term in terms.active().items()
        }

    def segment(self, count: int, concurrent: Sequence[int]) -> SegmentDraws:
        def index(j: int) -> int:
            return self.streams.integer("isg.anchor", self.step, low=0, high=count - 1, position=j)

        return SegmentDraws(
            initial_noise=self.normal("isg.initial_noise"),
            anchor=tuple(index(j) for j in self.positions),
            num_calls=max(index(j) for j in concurrent),
            mid_u=self.uniform("isg.mid"),
            guidance_u=self.streams.scalar("isg.guidance", self.step),
        )


def _anchors(
    streams: Streams, purpose: str, number: int, indices: range, stratified_over: int | None
) -> Callable[[int], int]:
    """Each row's anchor by its position: drawn alone, or one of a global batch whose anchors are spread evenly."""
    if stratified_over is None:
        return lambda j: streams.integer(purpose, number, low=indices.start, high=indices.stop - 1, position=j)
    ranks = streams.permutation(f"{purpose}.order", number, stratified_over)
    offset = streams.scalar(f"{purpose}.offset", number)
    spread = spread_anchors(ranks, offset=offset, num_anchors=len(indices))
    return lambda j: indices[spread[j]]
