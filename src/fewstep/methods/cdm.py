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

from fewstep.core import objectives
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent, extrapolate, renoise
from fewstep.core.schedules import Schedule
from fewstep.core.sigmas import SigmaLaw, SigmaRange, level
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.frozen_answers import ask_frozen
from fewstep.methods.isg import GuidedVelocity, isg_losses
from fewstep.methods.simulation import Trajectory, Velocity, simulate_to_anchor, simulate_whole
from fewstep.methods.terms import FreshNoise, LastAnchor, OffTrajectory, Term, Terms


@dataclass(frozen=True)
class Method:
    """The choices that make up one algorithm.

    Attributes:
        schedule: Anchors of the backward simulation, before the time shift.
        terms: The student's loss terms.
        sigma_range: Bounds of every noise level that is drawn; the upper one is at most the backbone's ``sigma_max``.
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
    method: Method, student: Velocity, prompts: PromptBatch, draws: Draws, *, anchor_gradient: bool
) -> Simulated:
    """Run the backward simulation, then ask the student once at all anchors.

    Args:
        method: The algorithm's choices.
        student: The student's velocity.
        prompts: Prompts of the samples.
        draws: The step's random numbers.
        anchor_gradient: Keep the graph of the call at the anchors, so that it is also the gradient forward of every
            term that asks there; it stays alive while the fake score is updated.
    """
    cond = prompts.student
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
    method: Method, fake_score: Velocity, simulated: Simulated, prompts: PromptBatch, draws: Draws
) -> Float[Tensor, "b"]:
    """The fake score learns the student's distribution: denoising of what the student drew. [eq:fake-score]"""
    final = simulated.trajectory.final
    x0 = simulated.x0 if method.fake_target == "anchor" or final is None else final
    point = renoise(x0, sigma=_level(method, method.fake_sigma, draws.denoising_u), noise=draws.denoising_noise)
    return objectives.denoising(fake_score(point, prompts.student), x0=x0, noise=draws.denoising_noise)


def student_losses(
    method: Method,
    *,
    student: Velocity,
    teacher: Velocity,
    fake_score: Velocity,
    guided_teacher: GuidedVelocity,
    simulated: Simulated,
    prompts: PromptBatch,
    draws: Draws,
) -> dict[str, Float[Tensor, "b"]]:
    """The unweighted losses of every active term, per sample.

    ``ca`` and ``dm`` ask at the same anchor: one forward with gradient serves both. Teacher and fake score see
    detached probes only, so gradients reach nothing but the student.
    """
    terms = method.terms.active()
    answers = _answers(method, terms, student, simulated, prompts.student, draws)
    x0_student = {name: answer.x0.detach() for name, answer in answers.items()}
    probes = {name: _probe(method, term, answers[name], draws.terms[name]) for name, term in terms.items()}
    views = ask_frozen(
        terms,
        x0_student,
        probes,
        teacher=teacher,
        fake_score=fake_score,
        prompts=prompts,
        batched=method.batch_frozen_calls,
    )
    losses = {
        name: objectives.pull(answers[name].x0, term.direction(views[name]), term.normaliser(views[name]))
        for name, term in terms.items()
    }
    if method.terms.isg is not None:
        assert draws.segment is not None
        losses["isg"] = isg_losses(
            method.terms.isg,
            student=student,
            guided_teacher=guided_teacher,
            prompts=prompts,
            draws=draws.segment,
            to_sigma=method.to_sigma,
            initial_scale=method.initial_scale,
        )
    return losses


@dataclass(frozen=True)
class _Answer:
    """The student's data prediction, with gradient, and the noise level at which it was asked."""

    x0: Float[Tensor, "b *latent"]
    sigma: Float[Tensor, "b"]


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
        if term.at_anchor:
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
    """A law's noise level. Without a query, laws below it see the largest level, 1."""
    bound = torch.ones_like(u) if query_sigma is None else query_sigma
    return level(law, u, query_sigma=bound, within=method.sigma_range)
