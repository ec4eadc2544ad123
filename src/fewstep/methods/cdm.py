"""Continuous-time distribution matching on one page.

    simulate -> one anchor per sample -> the fake score regresses on the student's answer there
    for each term: query -> x0_student -> probe -> direction -> pull

Every function takes networks as plain callables (:data:`~fewstep.methods.simulation.Velocity`) and returns one loss
per sample; who owns weights, optimisers and devices is not visible here. DMD2 and D-DMD are recipes over the same
terms.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core import objectives
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent, extrapolate, renoise
from fewstep.core.schedules import Schedule
from fewstep.core.sigmas import SigmaLaw, SigmaRange, level
from fewstep.methods.dp import dp_losses
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.frozen_answers import ask_frozen
from fewstep.methods.isg import GuidedVelocity, isg_losses
from fewstep.methods.simulation import Anchored, Simulated, SimulatedX0, Velocity, simulate_to_anchor, simulate_whole
from fewstep.methods.terms import FreshNoise, LastAnchor, OffTrajectory, Term, Terms, Views


@dataclass(frozen=True)
class Method:
    """The choices that make up one algorithm.

    Attributes:
        schedule: Anchors of the backward simulation, before the time shift.
        terms: The student's loss terms.
        sigma_range: Bounds of every noise level that is drawn; the upper one is at most the backbone's ``sigma_max``.
        fake_sigma: Law of the fake score's noise levels.
        fake_target: ``anchor``: x0 that the student predicts at its anchor; ``entering``: one anchor before;
            ``final``: its finished sample.
        to_sigma: The backbone's map from pre-shift levels to sigma.
        initial_scale: The backbone's factor on standard normal noise at its largest sigma.
        batch_frozen_calls: One batched call per frozen network and graph instead of one per probe (memory against
            speed).
    """

    schedule: Schedule
    terms: Terms
    sigma_range: SigmaRange
    fake_sigma: SigmaLaw
    fake_target: Literal["anchor", "entering", "final"]
    to_sigma: Callable[[Tensor], Tensor]
    initial_scale: float = 1.0
    batch_frozen_calls: bool = True

    @property
    def simulates_whole(self) -> bool:
        """Whether any active choice needs states behind the anchor."""
        return self.fake_target == "final" or self.terms.needs_whole_simulation()


def simulate(
    method: Method, student: Velocity, prompts: PromptBatch, draws: Draws, *, anchor_gradient: bool
) -> Simulated:
    """Run the backward simulation, then ask the student once at all anchors, if they are everybody's.

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
    last = None
    if draws.term_anchors or method.simulates_whole:
        anchors = [draws.anchor, *draws.term_anchors.values()]
        (found, *own), last = simulate_whole(
            student, initial, sigmas, cond, anchors=anchors, step_noise=draws.step_noise
        )
        if own:
            return Simulated(found, dict(zip(draws.term_anchors, own, strict=True)), last)
        point, x0_entering = found.point, found.x0_entering
    else:
        point, x0_entering = simulate_to_anchor(
            student,
            initial,
            sigmas,
            cond,
            anchor=draws.anchor,
            num_calls=draws.num_simulation_calls,
            step_noise=draws.step_noise,
        )
    with torch.set_grad_enabled(anchor_gradient):
        velocity = student(point, cond)
    return Simulated(Anchored(point, velocity, x0_entering), last=last)


def fake_score_losses(
    method: Method, fake_score: Velocity, simulated: Simulated, prompts: PromptBatch, draws: Draws
) -> Float[Tensor, "b"]:
    """The fake score learns the student's distribution: denoising of what the student drew. [eq:fake-score]"""
    target: SimulatedX0 = "leaving" if method.fake_target == "anchor" else method.fake_target
    x0 = simulated.x0(target, "fake_score")
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
    on_views: Callable[[Mapping[str, Views]], None] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Float[Tensor, "b"]]:
    """The unweighted losses of the active terms, per sample.

    ``ca`` and ``dm`` ask at the same anchor, unless each has its own: one forward with gradient serves both. Teacher
    and fake score see detached probes only, so gradients reach nothing but the student.

    Args:
        on_views: Is shown what each term looked at, by name.
        only: Names of the losses to make, those of one graph (:meth:`~fewstep.methods.terms.Terms.graphs`) so that no
            other is alive with it; None makes all.
    """
    chosen = set(method.terms.weights() if only is None else only)
    terms = {name: term for name, term in method.terms.active().items() if name in chosen}
    answers = _answers(method, terms, student, simulated, prompts.student, draws)
    x0_student = {name: answer.x0.detach() for name, answer in answers.items()}
    probes = {name: _probe(method, name, term, answers[name], simulated, draws) for name, term in terms.items()}
    views = ask_frozen(
        terms,
        x0_student,
        probes,
        teacher=teacher,
        fake_score=fake_score,
        prompts=prompts,
        batched=method.batch_frozen_calls,
    )
    if on_views is not None:
        on_views(views)
    losses = {
        name: objectives.pull(answers[name].x0, term.direction(views[name]), term.normaliser(views[name]))
        for name, term in terms.items()
    }
    if method.terms.isg is not None and "isg" in chosen:
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
    if method.terms.dp is not None and "dp" in chosen:
        losses["dp"] = dp_losses(
            method.terms.dp,
            student=student,
            guided_teacher=guided_teacher,
            prompts=prompts,
            initial=draws.initial_noise * method.initial_scale,
            to_sigma=method.to_sigma,
        )
    return losses


@dataclass(frozen=True)
class _Answer:
    """Where the student was asked, and its data prediction, with gradient."""

    query: NoisyLatent
    x0: Float[Tensor, "b *latent"]


def _answers(
    method: Method,
    terms: Mapping[str, Term],
    student: Velocity,
    simulated: Simulated,
    cond: Conditioning,
    draws: Draws,
) -> dict[str, _Answer]:
    at_anchor: dict[Anchored, _Answer] = {}
    answers = {}
    for name, term in terms.items():
        anchored = simulated.seen_by(name)
        if not term.at_anchor:
            query = _query(method, name, term, simulated, draws.terms[name])
            answers[name] = _Answer(query, query.x0(student(query, cond)))
            continue
        if anchored not in at_anchor:
            query, kept = anchored.point, anchored.velocity.requires_grad
            at_anchor[anchored] = _Answer(query, query.x0(anchored.velocity if kept else student(query, cond)))
        answers[name] = at_anchor[anchored]
    return answers


def _query(method: Method, name: str, term: Term, simulated: Simulated, draws: TermDraws) -> NoisyLatent:
    anchored, last = simulated.seen_by(name), simulated.last
    match term.query:
        case OffTrajectory(sigma=law, of=of):
            start = anchored if of == "anchor" else last
            assert start is not None
            sigma = _level(method, law, draws.query_u, query_sigma=start.point.sigma)
            return extrapolate(start.point, start.velocity.detach(), sigma=sigma)
        case FreshNoise(sigma=law, of=of):
            assert draws.query_noise is not None
            sigma = _level(method, law, draws.query_u, query_sigma=anchored.point.sigma)
            return renoise(simulated.x0(of, name), sigma=sigma, noise=draws.query_noise)
        case LastAnchor():
            assert last is not None
            return last.point
        case _:
            return anchored.point


def _probe(method: Method, name: str, term: Term, answer: _Answer, simulated: Simulated, draws: Draws) -> NoisyLatent:
    if term.probe_of == "query":
        return answer.query
    drawn = draws.terms[name]
    assert drawn.probe_noise is not None
    x0 = answer.x0.detach() if term.probe_of == "answer" else simulated.x0(term.probe_of, name)
    sigma = _level(method, term.probe, drawn.probe_u, query_sigma=answer.query.sigma)
    return renoise(x0, sigma=sigma, noise=drawn.probe_noise)


def _level(
    method: Method, law: SigmaLaw, u: Float[Tensor, "b"], query_sigma: Float[Tensor, "b"] | None = None
) -> Float[Tensor, "b"]:
    """A law's noise level. Without a query, laws below it see the largest level, 1."""
    bound = torch.ones_like(u) if query_sigma is None else query_sigma
    return level(law, u, query_sigma=bound, within=method.sigma_range)
