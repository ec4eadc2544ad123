"""Continuous-time distribution matching on one page.

    simulate -> one anchor per sample -> the fake score regresses on the student's answer there
    for each term: query -> x0_student -> probe -> direction -> pull

Every function takes networks as plain callables (:data:`~fewstep.methods.simulation.Velocity`) and returns one loss
per sample; who owns weights, optimisers and devices is not visible here. DMD2 and D-DMD are recipes over the same
terms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.backbones.protocol import Conditioning
from fewstep.core import flow, objectives
from fewstep.core.points import NoisyLatent, extrapolate, renoise
from fewstep.core.schedules import Schedule
from fewstep.core.sigmas import SigmaLaw, SigmaRange
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.simulation import Trajectory, Velocity, simulate_to_anchor, simulate_whole
from fewstep.methods.terms import (
    AtAnchor,
    CfgAugmentation,
    DistributionMatching,
    FreshNoise,
    LastAnchor,
    OffTrajectory,
    Terms,
)

Term = CfgAugmentation | DistributionMatching


@dataclass(frozen=True)
class Method:
    """The choices that make up one algorithm.

    Attributes:
        schedule: Anchors of the backward simulation, before the time shift.
        terms: The student's loss terms.
        sigma_range: Bounds of every drawn noise level; the upper one is at most the backbone's ``sigma_max``.
        fake_sigma: Law of the fake score's noise levels.
        fake_target: ``anchor``: x0 that the student predicts at its anchor; ``final``: its finished sample.
        to_sigma: The backbone's map from pre-shift levels to sigma.
        initial_scale: The backbone's factor on standard normal noise at its largest sigma.
        batch_frozen_calls: One batched call per frozen network instead of one per probe (memory against speed).
    """

    schedule: Schedule
    terms: Terms
    sigma_range: SigmaRange
    fake_sigma: SigmaLaw
    fake_target: str
    to_sigma: Callable[[Tensor], Tensor]
    initial_scale: float = 1.0
    batch_frozen_calls: bool = True

    @property
    def simulates_whole(self) -> bool:
        """Whether any active choice needs states behind the anchor."""
        return self.fake_target == "final" or self.terms.needs_whole_simulation()


@dataclass(frozen=True)
class Simulated:
    """The trajectory and the student's answer at the anchor, shared by every use of this step."""

    trajectory: Trajectory
    velocity: Float[Tensor, "b *latent"]

    @property
    def x0(self) -> Float[Tensor, "b *latent"]:
        """The student's data prediction at its anchor, detached."""
        return self.trajectory.anchor.x0(self.velocity).detach()


def simulate(
    method: Method, student: Velocity, cond: Conditioning, draws: Draws, *, anchor_gradient: bool
) -> Simulated:
    """Run the backward simulation, then ask the student once at all anchors.

    Args:
        method: The algorithm's choices.
        student: The student's velocity.
        cond: Prompts of the samples.
        draws: The step's random numbers.
        anchor_gradient: Keep the graph of the call at the anchors, so that it is also the gradient forward of every
            term that asks there; it stays alive while the fake score is updated.
    """
    sigmas = method.schedule.sigmas(draws.inner_u, method.to_sigma)
    initial = draws.initial_noise * method.initial_scale
    if method.simulates_whole:
        trajectory = simulate_whole(student, initial, sigmas, cond, anchor=draws.anchor)
    else:
        trajectory = simulate_to_anchor(
            student, initial, sigmas, cond, anchor=draws.anchor, num_calls=draws.num_simulation_calls
        )
    with torch.set_grad_enabled(anchor_gradient):
        velocity = student(trajectory.anchor, cond)
    return Simulated(trajectory, velocity)


def fake_score_losses(
    method: Method, fake_score: Velocity, simulated: Simulated, cond: Conditioning, draws: Draws
) -> Float[Tensor, "b"]:
    """The fake score learns the student's distribution: denoising of what the student drew. [eq:fake-score]"""
    final = simulated.trajectory.final
    x0 = simulated.x0 if method.fake_target == "anchor" or final is None else final
    point = renoise(x0, sigma=_level(method, method.fake_sigma, draws.denoising_u), noise=draws.denoising_noise)
    return objectives.denoising(fake_score(point, cond), x0=x0, noise=draws.denoising_noise)


def student_losses(
    method: Method,
    *,
    student: Velocity,
    teacher: Velocity,
    fake_score: Velocity,
    simulated: Simulated,
    cond: Conditioning,
    null_cond: Conditioning,
    draws: Draws,
) -> dict[str, Float[Tensor, "b"]]:
    """The unweighted losses of every active term, per sample.

    ``ca`` and ``dm`` ask at the same anchor: one forward with gradient serves both. Teacher and fake score see
    detached probes only, so gradients reach nothing but the student.
    """
    terms = method.terms.active()
    answers = _answers(method, terms, student, simulated, cond, draws)
    probes = {
        name: _probe(method, term, answers[name], draws.terms[name]) for name, term in terms.items()
    }
    views = _look(method, terms, probes, teacher=teacher, fake_score=fake_score, cond=cond, null_cond=null_cond)
    return {name: _pull(term, answers[name].x0, views[name]) for name, term in terms.items()}


@dataclass(frozen=True)
class _Answer:
    """The student's data prediction, with gradient, and the noise level at which it was asked."""

    x0: Float[Tensor, "b *latent"]
    sigma: Float[Tensor, "b"]


@dataclass(frozen=True)
class _View:
    """Data predictions of the frozen networks at one term's probe; None where the term does not ask."""

    x0_cond: Float[Tensor, "b *latent"]
    x0_null: Float[Tensor, "b *latent"] | None
    x0_fake: Float[Tensor, "b *latent"] | None


def _answers(
    method: Method,
    terms: Mapping[str, Term],
    student: Velocity,
    simulated: Simulated,
    cond: Conditioning,
    draws: Draws,
) -> dict[str, _Answer]:
    at_anchor: _Answer | None = None
    answers = {}
    for name, term in terms.items():
        if isinstance(term.query, AtAnchor):
            if at_anchor is None:
                anchor = simulated.trajectory.anchor
                velocity = simulated.velocity if simulated.velocity.requires_grad else student(anchor, cond)
                at_anchor = _Answer(anchor.x0(velocity), anchor.sigma)
            answers[name] = at_anchor
        else:
            point = _query(method, term, simulated, draws.terms[name])
            answers[name] = _Answer(point.x0(student(point, cond)), point.sigma)
    return answers


def _query(method: Method, term: Term, simulated: Simulated, draws: TermDraws) -> NoisyLatent:
    trajectory = simulated.trajectory
    match term.query:
        case OffTrajectory(sigma=law):
            sigma = _level(method, law, draws.query_u, query_sigma=trajectory.anchor.sigma)
            return extrapolate(trajectory.anchor, simulated.velocity.detach(), sigma=sigma)
        case FreshNoise(sigma=law):
            assert trajectory.final is not None and draws.query_noise is not None
            sigma = _level(method, law, draws.query_u, query_sigma=trajectory.anchor.sigma)
            return renoise(trajectory.final, sigma=sigma, noise=draws.query_noise)
        case LastAnchor():
            assert trajectory.last_anchor is not None
            return trajectory.last_anchor
        case _:
            return trajectory.anchor


def _probe(method: Method, term: Term, answer: _Answer, draws: TermDraws) -> NoisyLatent:
    sigma = _level(method, term.probe, draws.probe_u, query_sigma=answer.sigma)
    return renoise(answer.x0.detach(), sigma=sigma, noise=draws.probe_noise)


def _level(
    method: Method, law: SigmaLaw, u: Float[Tensor, "b"], query_sigma: Float[Tensor, "b"] | None = None
) -> Float[Tensor, "b"]:
    """A drawn noise level, clamped. Without a query, laws below it see the largest level, 1."""
    bound = torch.ones_like(u) if query_sigma is None else query_sigma
    return method.sigma_range.clamp(law.sigma(u, query_sigma=bound))


@torch.no_grad()
def _look(
    method: Method,
    terms: Mapping[str, Term],
    probes: Mapping[str, NoisyLatent],
    *,
    teacher: Velocity,
    fake_score: Velocity,
    cond: Conditioning,
    null_cond: Conditioning,
) -> dict[str, _View]:
    """Ask the frozen networks at every probe: one batched call each when the method says so."""
    needs_null = [name for name, term in terms.items() if _needs_null(term)]
    needs_fake = [name for name, term in terms.items() if isinstance(term, DistributionMatching)]
    teacher_asked = [(probes[name], cond) for name in terms] + [(probes[name], null_cond) for name in needs_null]
    teacher_x0 = _ask(teacher, teacher_asked, batched=method.batch_frozen_calls)
    fake_x0 = _ask(fake_score, [(probes[name], cond) for name in needs_fake], batched=method.batch_frozen_calls)
    x0_cond = dict(zip(terms, teacher_x0, strict=False))
    x0_null = dict(zip(needs_null, teacher_x0[len(terms) :], strict=True))
    x0_fake = dict(zip(needs_fake, fake_x0, strict=True))
    return {name: _View(x0_cond[name], x0_null.get(name), x0_fake.get(name)) for name in terms}


def _needs_null(term: Term) -> bool:
    return isinstance(term, CfgAugmentation) or term.guidance_scale != 1.0


def _ask(
    network: Velocity, asked: list[tuple[NoisyLatent, Conditioning]], *, batched: bool
) -> list[Float[Tensor, "b *latent"]]:
    if not batched or len(asked) < 2:
        return [point.x0(network(point, cond)) for point, cond in asked]
    together = NoisyLatent(
        torch.cat([point.x_sigma for point, _ in asked]), torch.cat([point.sigma for point, _ in asked])
    )
    velocity = network(together, Conditioning.cat([cond for _, cond in asked]))
    return list(together.x0(velocity).chunk(len(asked)))


def _pull(term: Term, x0_student: Float[Tensor, "b *latent"], view: _View) -> Float[Tensor, "b"]:
    """Direction and normaliser of one term, then the pull."""
    if isinstance(term, CfgAugmentation):
        assert view.x0_null is not None
        direction = objectives.cfg_augmentation(view.x0_cond, view.x0_null, scale=term.scale)
        reference = view.x0_cond
    else:
        assert view.x0_fake is not None
        reference = view.x0_cond
        if view.x0_null is not None:
            reference = flow.guide(view.x0_cond, view.x0_null, term.guidance_scale)
        direction = objectives.distribution_matching(reference, view.x0_fake)
    scale = objectives.normaliser(reference, x0_student.detach(), floor=term.floor)
    return objectives.pull(x0_student, direction, scale)
