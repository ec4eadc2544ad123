"""Every switch of the published code against its formula, written out in float64 over a whole trajectory."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import RandomLengthSchedule
from fewstep.methods.cdm import Method, fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws
from fewstep.methods.terms import (
    DistributionMatching,
    FreshNoise,
    LastAnchor,
    OffTrajectory,
    Terms,
)
from tests.methods.toy import RELEASED, draws, labels, method, unguided

BATCH, SHAPE = 6, (2,)
COND, NULL = labels([0, 1, 0, 1, 0, 1]), labels([2] * BATCH)
PROMPTS = PromptBatch(student=COND, teacher=COND, positive=COND, negative=NULL)
QUERIES = {
    "anchor": DistributionMatching().query,
    "trajectory_eps": OffTrajectory(),
    "trajectory_eps_last": OffTrajectory(of="last_anchor"),
    "last_anchor": LastAnchor(),
    "fresh x0": FreshNoise(of="entering"),
    "fresh x0_next": FreshNoise(of="leaving"),
    "fresh final": FreshNoise(),
}
PROBES = ["answer", "entering", "leaving", "final", "query"]


class Bent(nn.Module):
    """A velocity field that bends, with one weight; in the precision of the state it is asked at."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.calls = 0

    def at(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[:, None]
        velocity: Tensor = (self.weight * x).tanh() + (4 * s).sin() * x - 0.5 * self.weight
        return velocity

    def forward(self, point: NoisyLatent, cond: Conditioning) -> Tensor:
        self.calls += 1
        return self.at(point.x_sigma.double(), point.sigma.double()).float()


STUDENT, TEACHER, FAKE = 0.7, 1.3, 0.4


@dataclass(frozen=True)
class Recorded:
    """A whole trajectory: states, predictions of x0 (the first is the initial noise), velocities and noise levels."""

    xt: Tensor
    x0: Tensor
    v: Tensor
    sigmas: Tensor

    @staticmethod
    def of(student: Bent, sigmas: Tensor, initial: Tensor, noise: Tensor | None) -> "Recorded":
        with torch.no_grad():
            xt, x0, v = [initial.double()], [initial.double()], []
            sigmas = torch.cat([sigmas.double(), torch.zeros(len(sigmas), 1, dtype=torch.float64)], dim=1)
            for k in range(sigmas.shape[1] - 1):
                now, after = sigmas[:, k, None], sigmas[:, k + 1, None]
                v.append(student.at(xt[-1], sigmas[:, k]))
                x0.append(xt[-1] - now * v[-1])
                if noise is None:
                    xt.append(xt[-1] + (after - now) * v[-1])
                else:
                    fresh = noise[:, k].double() if k < noise.shape[1] else torch.zeros_like(xt[-1])
                    xt.append((1 - after) * x0[-1] + after * fresh)
        return Recorded(torch.stack(xt), torch.stack(x0), torch.stack(v), sigmas)

    def base(self, name: str, index: Tensor) -> Tensor:
        rows = torch.arange(BATCH)
        return {"entering": self.x0[index, rows], "leaving": self.x0[index + 1, rows], "final": self.x0[-1]}[name]


def written_out(term: DistributionMatching, index: Tensor, seen: Recorded, drawn: Draws, student: Bent) -> Tensor:
    """The loss of ``dm`` with this query and probe, per sample."""
    rows, last, of_term = torch.arange(BATCH), torch.full((BATCH,), len(seen.v) - 1), drawn.terms["dm"]

    def clamped(u: Tensor) -> Tensor:
        return u.double().clamp(0.02, 0.98)

    def noised(x0: Tensor, sigma: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        return (1 - sigma[:, None]) * x0 + sigma[:, None] * noise.double()

    match term.query:
        case OffTrajectory(of=of):
            i, sigma_q = (index if of == "anchor" else last), clamped(of_term.query_u)
            x_q = seen.xt[i, rows] + (sigma_q - seen.sigmas[rows, i])[:, None] * seen.v[i, rows]
        case FreshNoise(of=of):
            sigma_q = clamped(of_term.query_u)
            x_q = noised(seen.base(of, index), sigma_q, of_term.query_noise)
        case LastAnchor():
            x_q, sigma_q = seen.xt[last, rows], seen.sigmas[rows, last]
        case _:
            x_q, sigma_q = seen.xt[index, rows], seen.sigmas[rows, index]
    x0_student = x_q - sigma_q[:, None] * student.at(x_q, sigma_q)
    if term.probe_of == "query":
        x_p, sigma_p = x_q, sigma_q
    else:
        base = x0_student.detach() if term.probe_of == "answer" else seen.base(term.probe_of, index)
        sigma_p = clamped(of_term.probe_u)
        x_p = noised(base, sigma_p, of_term.probe_noise)
    with torch.no_grad():
        x0_teacher = x_p - sigma_p[:, None] * Bent(TEACHER).at(x_p, sigma_p)
        x0_fake = x_p - sigma_p[:, None] * Bent(FAKE).at(x_p, sigma_p)
        size = (x0_teacher - x0_student).abs().mean(1, keepdim=True).clamp_min(0.1)
        target = x0_student + (x0_teacher - x0_fake) / size
    return (x0_student - target).square().mean(1)


def five_steps(terms: Terms, **changes: object) -> Method:
    return method(terms, schedule=RandomLengthSchedule(min_steps=5, max_steps=5), **changes)


def losses_of(of: Method, drawn: Draws, student: Bent, *, anchor_gradient: bool = True) -> dict[str, Tensor]:
    return student_losses(
        of,
        student=student,
        teacher=Bent(TEACHER),
        fake_score=Bent(FAKE),
        guided_teacher=unguided,
        simulated=simulate(of, student, PROMPTS, drawn, anchor_gradient=anchor_gradient),
        prompts=PROMPTS,
        draws=drawn,
    )


@pytest.mark.parametrize("renoises", [False, True], ids=["euler", "renoise"])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("probe_of", PROBES)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_term_is_its_formula_written_out(query: Any, probe_of: Any, own: bool, renoises: bool) -> None:
    term = DistributionMatching(query=query, probe_of=probe_of)
    of = five_steps(Terms(dm=term))
    drawn = draws(of, step=3, own_anchors=["dm"] if own else [], renoises=renoises)
    index = torch.tensor(drawn.term_anchors["dm"] if own else drawn.anchor)
    ours, theirs = Bent(STUDENT), Bent(STUDENT)
    sigmas = of.schedule.sigmas(drawn.inner_u, of.to_sigma)
    seen = Recorded.of(theirs, sigmas, drawn.initial_noise, drawn.step_noise)
    loss, expected = losses_of(of, drawn, ours)["dm"], written_out(term, index, seen, drawn, theirs)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    expected.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("renoises", [False, True], ids=["euler", "renoise"])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize(
    ("target", "base"), [("anchor", "leaving"), ("entering", "entering"), ("final", "final")], ids=lambda name: name
)
def test_the_fake_score_regresses_on_its_target(target: str, base: str, own: bool, renoises: bool) -> None:
    of = five_steps(RELEASED, fake_target=target)
    drawn = draws(of, step=1, own_anchors=["ca", "dm", "cdm"] if own else [], renoises=renoises)
    student, fake = Bent(STUDENT), Bent(FAKE)
    sigmas = of.schedule.sigmas(drawn.inner_u, of.to_sigma)
    x0 = Recorded.of(student, sigmas, drawn.initial_noise, drawn.step_noise).base(base, torch.tensor(drawn.anchor))
    sigma, noise = drawn.denoising_u.double().clamp(0.02, 0.98), drawn.denoising_noise.double()
    x_sigma = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
    expected = (fake.at(x_sigma, sigma) - (noise - x0)).square().mean(1)
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=False)
    loss = fake_score_losses(of, fake, simulated, PROMPTS, drawn)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)


def test_what_enters_the_first_anchor_is_the_initial_noise() -> None:
    of = method(RELEASED, schedule=RandomLengthSchedule(min_steps=1, max_steps=1))
    drawn = draws(of)
    simulated = simulate(of, Bent(STUDENT), PROMPTS, drawn, anchor_gradient=False)
    assert torch.equal(simulated.x0("entering", "fake_score"), drawn.initial_noise)


def test_terms_that_look_at_what_entered_the_anchor_let_samples_leave_early() -> None:
    assert not Terms(dm=DistributionMatching(probe_of="entering")).needs_whole_simulation()
    assert not Terms(dm=DistributionMatching(query=FreshNoise(of="leaving"))).needs_whole_simulation()
    assert Terms(dm=DistributionMatching(probe_of="final")).needs_whole_simulation()
    assert Terms(dm=DistributionMatching(query=OffTrajectory(of="last_anchor"))).needs_whole_simulation()


@pytest.mark.parametrize("length", [1, 5])  # of one anchor all indices are alike
@pytest.mark.parametrize("anchor_gradient", [False, True])
def test_with_anchors_of_their_own_the_simulation_answers_everybody_and_terms_share_no_forward(
    anchor_gradient: bool, length: int
) -> None:
    of = method(RELEASED, schedule=RandomLengthSchedule(min_steps=length, max_steps=length))
    drawn = draws(of, step=3, own_anchors=["ca", "dm", "cdm"])
    assert len({drawn.anchor, *drawn.term_anchors.values()}) == min(length, 4)
    student = Bent(STUDENT)
    losses = losses_of(of, drawn, student, anchor_gradient=anchor_gradient)
    assert student.calls == length + 3
    for graph in of.terms.graphs(own_anchors=True):
        torch.stack([losses[name].mean() for name in graph]).sum().backward()  # each has a graph of its own


def test_a_step_without_terms_lets_samples_leave_at_the_fake_scores_anchor() -> None:
    of = five_steps(RELEASED)
    student, drawn = Bent(STUDENT), draws(of, step=3, student=False)
    simulate(of, student, PROMPTS, drawn, anchor_gradient=False)
    assert student.calls == drawn.num_simulation_calls + 1 < 5 + 1
