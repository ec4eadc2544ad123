"""The CDM step on a toy network: exact savings, where gradients go, and the published special cases."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.core import flow, objectives
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent, extrapolate, renoise
from fewstep.core.sigmas import SameAsQuery
from fewstep.methods.cdm import Method, fake_score_losses, simulate, student_losses
from fewstep.methods.companions import IntraSegmentGuidance
from fewstep.methods.draws import Draws
from fewstep.methods.simulation import Simulated, simulate_whole
from fewstep.methods.terms import (
    CfgAugmentation,
    ContinuousAlignment,
    DistributionMatching,
    FreshNoise,
    LastAnchor,
    OffTrajectory,
    Terms,
    Views,
)
from tests.methods.toy import RELEASED, ToyVelocity, draws, labels, method, unguided

COND, NULL = labels([0, 1, 0, 1, 0, 1]), labels([2] * 6)
PROMPTS = PromptBatch(student=COND, teacher=COND, positive=COND, negative=NULL)


def networks() -> tuple[ToyVelocity, ToyVelocity, ToyVelocity]:
    return ToyVelocity(seed=1), ToyVelocity(seed=2), ToyVelocity(seed=3)


def gradients(network: ToyVelocity) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def losses_of(of: Method, drawn: Draws, student: ToyVelocity, *, anchor_gradient: bool = True) -> dict[str, Tensor]:
    return losses_at(of, drawn, student, simulate(of, student, PROMPTS, drawn, anchor_gradient=anchor_gradient))


def losses_at(
    of: Method, drawn: Draws, student: ToyVelocity, simulated: Simulated, *, only: tuple[str, ...] | None = None
) -> dict[str, Tensor]:
    _, teacher, fake = networks()
    return student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
        only=only,
    )


def plain_formulation(of: Method, drawn: Draws, student: ToyVelocity) -> dict[str, Tensor]:
    """Section by section as the paper says it: whole simulation, one forward per term, no batching, no sharing."""
    _, teacher, fake = networks()
    sigmas = of.schedule.sigmas(drawn.inner_u, of.to_sigma)
    (found,), _ = simulate_whole(student, drawn.initial_noise, sigmas, COND, anchors=[drawn.anchor])
    anchor, velocity = found.point, found.velocity
    losses = {}
    for name in ("ca", "dm", "cdm"):
        term = drawn.terms[name]
        query = anchor
        if name == "cdm":
            query = extrapolate(anchor, velocity, sigma=term.query_u.clamp(0.02, 0.98))
        x0_student = query.x0(student(query, COND))
        below = anchor.sigma if name == "ca" else 1.0
        probe = renoise(x0_student.detach(), sigma=(term.probe_u * below).clamp(0.02, 0.98), noise=term.probe_noise)
        with torch.no_grad():
            x0_cond = probe.x0(teacher(probe, COND))
            if name == "ca":
                direction = 2.0 * (x0_cond - probe.x0(teacher(probe, NULL)))
            else:
                direction = x0_cond - probe.x0(fake(probe, COND))
            size = (x0_cond - x0_student).abs().mean(1, keepdim=True).clamp_min(0.1)
        losses[name] = (x0_student - (x0_student + direction / size).detach()).square().mean(1)
    return losses


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("anchor_gradient", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_every_saving_gives_the_gradient_of_the_plain_formulation(
    step: int, anchor_gradient: bool, batched: bool
) -> None:
    of = method(batch_frozen_calls=batched)
    drawn = draws(of, step=step)
    plain, saving = ToyVelocity(seed=1), ToyVelocity(seed=1)
    expected = plain_formulation(of, drawn, plain)
    actual = losses_of(of, drawn, saving, anchor_gradient=anchor_gradient)
    for name, loss in expected.items():
        torch.testing.assert_close(actual[name], loss, rtol=1e-4, atol=1e-6)
    sum(loss.mean() for loss in expected.values()).backward()  # type: ignore[union-attr]
    sum(loss.mean() for loss in actual.values()).backward()  # type: ignore[union-attr]
    difference = (gradients(saving) - gradients(plain)).norm() / gradients(plain).norm()
    assert difference < 2e-6  # float32 rounding of sums taken in another order


def test_the_gradient_forward_is_shared_by_ca_and_dm_and_by_the_simulation() -> None:
    of = method()
    drawn = draws(of, step=3)
    student = ToyVelocity(seed=1)
    losses_of(of, drawn, student)
    # the simulation up to the anchors, one call at the anchors, one off the trajectory
    assert len(student.calls) == drawn.num_simulation_calls + 2
    assert sum(student.calls) == sum(drawn.anchor) + 6 + 6


def test_frozen_networks_answer_in_one_call_each() -> None:
    of = method()
    drawn = draws(of)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    assert teacher.calls == [4 * 6] and fake.calls == [2 * 6]


def test_gradients_of_the_student_losses_reach_nothing_but_the_student() -> None:
    of = method()
    drawn = draws(of)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert all(p.grad is None for network in (teacher, fake) for p in network.parameters())


def test_gradients_of_the_fake_score_loss_reach_nothing_but_the_fake_score() -> None:
    of = method()
    drawn = draws(of)
    student, _, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    fake_score_losses(of, fake, simulated, PROMPTS, drawn).mean().backward()
    assert all(p.grad is None for p in student.parameters())
    assert all(p.grad is not None for p in fake.parameters())


def test_the_anchor_graph_survives_an_update_of_the_fake_score() -> None:
    of = method()
    drawn = draws(of)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    fake_score_losses(of, fake, simulated, PROMPTS, drawn).mean().backward()
    with torch.no_grad():
        for p in fake.parameters():
            p.sub_(0.1 * p.grad)  # type: ignore[arg-type, operator]
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    losses["dm"].mean().backward()
    assert gradients(student).isfinite().all()


def test_the_dmd2_direction_is_dm_plus_guidance_minus_one_times_the_difference() -> None:
    guided = Terms(dm=DistributionMatching(guidance_scale=4.5))
    of = method(guided)
    drawn = draws(of)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    term = drawn.terms["dm"]
    x0_student = simulated.anchored.x0_leaving
    probe = renoise(x0_student, sigma=term.probe_u.clamp(0.02, 0.98), noise=term.probe_noise)
    x0_cond, x0_null = probe.x0(teacher(probe, COND)), probe.x0(teacher(probe, NULL))
    direction = objectives.distribution_matching(x0_cond, probe.x0(fake(probe, COND))) + 3.5 * (x0_cond - x0_null)
    scale = objectives.normaliser(flow.guide(x0_cond, x0_null, 4.5), x0_student)
    torch.testing.assert_close(losses["dm"], objectives.pull(x0_student, direction, scale), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("probe_of", ["answer", "entering", "leaving", "final", "query"])
@pytest.mark.parametrize("target", ["anchor", "entering", "final"])
@pytest.mark.parametrize(
    "query",
    [
        *(DistributionMatching().query, LastAnchor(), OffTrajectory(), OffTrajectory(of="last_anchor")),
        *(FreshNoise(), FreshNoise(of="entering"), FreshNoise(of="leaving")),
    ],
    ids=lambda query: f"{query.at} {getattr(query, 'of', '')}",
)
def test_every_query_and_target_that_the_types_admit_trains_the_student(
    query: Any, target: str, probe_of: Any, own: bool
) -> None:
    terms = Terms(
        ca=CfgAugmentation(query=query, probe_of=probe_of),
        dm=DistributionMatching(),
        cdm=ContinuousAlignment(query=query, probe_of=probe_of),
    )
    of = method(terms, fake_target=target)
    drawn = draws(of, own_anchors=list(terms.active()) if own else [], renoises=own)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
    assert gradients(student).isfinite().all() and gradients(student).abs().sum() > 0
    assert fake_score_losses(of, fake, simulated, PROMPTS, drawn).isfinite().all()


def test_the_last_anchor_and_the_final_sample_are_those_of_the_whole_simulation() -> None:
    of = method(Terms(dm=DistributionMatching(query=LastAnchor())))
    drawn = draws(of)
    student = ToyVelocity(seed=1)
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=False)
    assert simulated.last is not None
    last = simulated.last.point
    assert torch.equal(last.sigma, of.schedule.sigmas(drawn.inner_u, of.to_sigma)[:, -1])
    torch.testing.assert_close(simulated.x0("final", "dm"), last.x0(student(last, COND)))


def test_losses_at_the_anchor_share_a_graph_and_the_others_have_their_own() -> None:
    assert RELEASED.graphs() == [("ca", "dm"), ("cdm",)]
    with_isg = Terms(dm=DistributionMatching(query=LastAnchor()), isg=IntraSegmentGuidance())
    assert with_isg.graphs() == [("isg",), ("dm",)]


def test_losses_at_anchors_of_their_own_share_no_graph() -> None:
    assert RELEASED.graphs(own_anchors=True) == [("cdm",), ("dm",), ("ca",)]


@pytest.mark.parametrize("anchor_gradient", [True, False])
def test_one_backward_per_graph_gives_the_gradient_of_one_for_all(anchor_gradient: bool) -> None:
    of = method()
    drawn = draws(of, step=3)
    together, one_by_one = ToyVelocity(seed=1), ToyVelocity(seed=1)
    losses = losses_of(of, drawn, together, anchor_gradient=anchor_gradient)
    torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
    simulated = simulate(of, one_by_one, PROMPTS, drawn, anchor_gradient=anchor_gradient)
    for graph in of.terms.graphs():
        own = losses_at(of, drawn, one_by_one, simulated, only=graph)
        assert set(own) == set(graph)
        torch.stack([loss.mean() for loss in own.values()]).sum().backward()
    torch.testing.assert_close(gradients(one_by_one), gradients(together), rtol=1e-5, atol=1e-7)


class _Twice(DistributionMatching):
    """A term of somebody else: twice the direction, and a normaliser of its own."""

    def direction(self, views: Views) -> Tensor:
        return 2.0 * super().direction(views)

    def normaliser(self, views: Views) -> Tensor:
        return torch.full_like(views.probe.sigma, 4.0)


class _WithTwice(Terms):
    twice: _Twice | None = None


def test_a_term_says_its_direction_and_its_normaliser() -> None:
    of = method(_WithTwice(dm=DistributionMatching(floor=16.0), twice=_Twice()))
    drawn = draws(of)
    drawn = replace(drawn, terms=dict.fromkeys(drawn.terms, drawn.terms["dm"]))
    losses = losses_of(of, drawn, ToyVelocity(seed=1))
    # both are pulled from the same probe: by direction / 16, and by 2 direction / 4
    torch.testing.assert_close(losses["twice"], losses["dm"] * 8.0**2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("over", ["sample", "token"])
def test_guidance_that_is_renormalised_pulls_along_a_prediction_of_the_same_length(over: Any) -> None:
    of = method(Terms(ca=CfgAugmentation(scale=2.0, renormalise=over)))
    drawn = draws(of)
    student, teacher, _ = networks()
    loss = losses_of(of, drawn, student)["ca"]
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=False)
    x0_student, term = simulated.anchored.x0_leaving, drawn.terms["ca"]
    assert term.probe_noise is not None
    sigma = (term.probe_u * simulated.anchored.point.sigma).clamp(0.02, 0.98)
    probe = renoise(x0_student, sigma=sigma, noise=term.probe_noise)
    x0_cond, x0_null = probe.x0(teacher(probe, COND)), probe.x0(teacher(probe, NULL))
    guided = x0_cond + 2.0 * (x0_cond - x0_null)
    direction = guided * x0_cond.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True) - x0_cond
    expected = objectives.pull(x0_student, direction, objectives.normaliser(x0_cond, x0_student))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_the_weight_of_a_term_warms_up_with_the_students_updates() -> None:
    terms = Terms(dm=DistributionMatching(), cdm=ContinuousAlignment(weight=2.0, warmup=4))
    assert [terms.weights(update=k) for k in (0, 1, 3, 9)] == [
        {"dm": 1.0, "cdm": weight} for weight in (0.5, 1.0, 2.0, 2.0)
    ]
    assert terms.weights() == {"dm": 1.0, "cdm": 2.0}


def test_a_term_of_another_class_under_a_built_in_name_is_refused() -> None:
    """Its own settings would train, and be lost from those that the run writes down."""
    with pytest.raises(ValueError, match=r"terms\.dm is a _Twice, but only a DistributionMatching can be written down"):
        Terms(dm=_Twice())


def test_terms_without_a_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="terms names no loss; switch on at least one of ca, dm, cdm"):
        Terms()


def test_the_released_terms_need_no_state_behind_the_anchor() -> None:
    assert not RELEASED.needs_whole_simulation()


def test_a_backbone_without_unconditional_branch_names_its_own_contrast() -> None:
    """As FLUX: the teacher at guidance low, the direction from low to high, per unit of guidance."""
    of = method(Terms(ca=CfgAugmentation(scale=2.0), dm=DistributionMatching()))
    drawn = draws(of)
    student, teacher, fake = networks()
    low, high = labels([1] * 6), labels([0] * 6)
    prompts = PromptBatch(student=COND, teacher=low, positive=high, negative=low, contrast=0.4)
    simulated = simulate(of, student, prompts, drawn, anchor_gradient=True)
    losses = student_losses(
        of,
        student=student,
        teacher=teacher,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=prompts,
        draws=drawn,
    )
    assert teacher.calls == [3 * 6]  # low at both probes, high at one
    x0_student = simulated.anchored.x0_leaving
    probe = renoise(
        x0_student,
        sigma=(drawn.terms["ca"].probe_u * simulated.anchored.point.sigma).clamp(0.02, 0.98),
        noise=drawn.terms["ca"].probe_noise,
    )
    x0_low, x0_high = probe.x0(teacher(probe, low)), probe.x0(teacher(probe, high))
    expected = objectives.pull(x0_student, 2.0 * 0.4 * (x0_high - x0_low), objectives.normaliser(x0_low, x0_student))
    torch.testing.assert_close(losses["ca"], expected, rtol=1e-4, atol=1e-6)


def test_a_probe_at_its_querys_level_is_pure_noise_where_the_query_is() -> None:
    terms = Terms(dm=DistributionMatching(probe=SameAsQuery()))
    of = method(terms)
    drawn = draws(of)
    student, teacher, fake = networks()
    simulated = simulate(of, student, PROMPTS, drawn, anchor_gradient=True)
    seen = []

    def watched(point: NoisyLatent, cond: Conditioning) -> Tensor:
        seen.append(point)
        return teacher(point, cond)

    student_losses(
        of,
        student=student,
        teacher=watched,
        fake_score=fake,
        guided_teacher=unguided,
        simulated=simulated,
        prompts=PROMPTS,
        draws=drawn,
    )
    (probe,) = seen
    anchors = simulated.anchored.point.sigma
    assert (anchors == 1).any()
    assert torch.equal(probe.sigma, anchors)
    first = anchors == 1
    assert torch.equal(probe.x_sigma[first], drawn.terms["dm"].probe_noise[first])
