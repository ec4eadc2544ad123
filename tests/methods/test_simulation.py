import pytest
import torch

from fewstep.core.schedules import FixedSchedule
from fewstep.methods.simulation import simulate_to_anchor, simulate_whole
from tests.golden import arrays
from tests.methods.toy import ToyVelocity, draws, labels, method


@pytest.mark.parametrize("renoises", [False, True])
@pytest.mark.parametrize("step", range(5))
def test_leaving_at_the_anchor_gives_the_states_of_the_whole_simulation(step: int, renoises: bool) -> None:
    of = method()
    drawn = draws(of, step=step, batch=5, renoises=renoises)
    cond, student = labels([0, 1, 0, 1, 1]), ToyVelocity()
    sigmas = of.schedule.sigmas(drawn.inner_u, of.to_sigma)
    (whole,), _ = simulate_whole(
        student, drawn.initial_noise, sigmas, cond, anchors=[drawn.anchor], step_noise=drawn.step_noise
    )
    point, x0_entering = simulate_to_anchor(
        student,
        drawn.initial_noise,
        sigmas,
        cond,
        anchor=drawn.anchor,
        num_calls=drawn.num_simulation_calls,
        step_noise=drawn.step_noise,
    )
    torch.testing.assert_close(point.x_sigma, whole.point.x_sigma, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x0_entering, whole.x0_entering, rtol=1e-5, atol=1e-6)
    assert torch.equal(point.sigma, whole.point.sigma)


def test_a_sample_takes_as_many_calls_as_its_anchor_index() -> None:
    student = ToyVelocity()
    sigmas = FixedSchedule().sigmas(torch.zeros(4, 3), lambda level: level)
    simulate_to_anchor(student, torch.randn(4, 2), sigmas, labels([0] * 4), anchor=(3, 0, 1, 3), num_calls=3)
    assert student.calls == [3, 2, 2]


def test_a_process_without_live_samples_makes_the_same_number_of_calls_and_moves_nothing() -> None:
    student, noise = ToyVelocity(), torch.randn(2, 2)
    sigmas = FixedSchedule().sigmas(torch.zeros(2, 3), lambda level: level)
    point, x0_entering = simulate_to_anchor(student, noise, sigmas, labels([0, 1]), anchor=(0, 0), num_calls=3)
    assert student.calls == [1, 1, 1]
    assert torch.equal(point.x_sigma, noise) and torch.equal(x0_entering, noise)


def test_the_simulation_keeps_no_graph() -> None:
    sigmas = FixedSchedule().sigmas(torch.zeros(2, 3), lambda level: level)
    (found,), last = simulate_whole(ToyVelocity(), torch.randn(2, 2), sigmas, labels([0, 1]), anchors=[(1, 3)])
    assert not found.velocity.requires_grad and not last.x0_leaving.requires_grad


def test_the_recorded_simulation_is_reproduced_from_its_velocities() -> None:
    stored = {name: torch.from_numpy(value) for name, value in arrays("iter_default").items()}
    calls = iter(stored["all_v"])
    every_anchor = [(i,) * 4 for i in range(5)]
    found, last = simulate_whole(
        lambda point, cond: next(calls),
        stored["x_T"],
        stored["sched_sigmas"][:-1].expand(4, -1),
        labels([0] * 4),
        anchors=[*every_anchor, tuple(stored["randint"].tolist())],
    )
    for i, anchored in enumerate(found[:-1]):
        torch.testing.assert_close(anchored.point.x_sigma, stored["all_xt"][i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(anchored.x0_entering, stored["all_x0"][i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(anchored.x0_leaving, stored["all_x0"][i + 1], rtol=1e-4, atol=1e-5)
    of_each, rows = found[-1], torch.arange(4)
    torch.testing.assert_close(of_each.point.x_sigma, stored["all_xt"][stored["randint"], rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_each.velocity, stored["all_v"][stored["randint"], rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.x0_leaving, stored["all_xt"][-1], rtol=1e-4, atol=1e-5)
