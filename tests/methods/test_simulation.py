import pytest
import torch

from fewstep.core.schedules import FixedSchedule
from fewstep.methods.simulation import simulate_to_anchor, simulate_whole
from tests.golden import arrays
from tests.methods.toy import ToyVelocity, draws, labels, method


@pytest.mark.parametrize("step", range(5))
def test_leaving_at_the_anchor_gives_the_states_of_the_whole_simulation(step: int) -> None:
    of = method()
    drawn = draws(of, step=step, batch=5)
    cond, student = labels([0, 1, 0, 1, 1]), ToyVelocity()
    sigmas = of.schedule.sigmas(drawn.inner_u, of.to_sigma)
    whole = simulate_whole(student, drawn.initial_noise, sigmas, cond, anchor=drawn.anchor)
    left = simulate_to_anchor(
        student, drawn.initial_noise, sigmas, cond, anchor=drawn.anchor, num_calls=drawn.num_simulation_calls
    )
    torch.testing.assert_close(left.anchor.x_sigma, whole.anchor.x_sigma, rtol=1e-5, atol=1e-6)
    assert torch.equal(left.anchor.sigma, whole.anchor.sigma)


def test_a_sample_takes_as_many_calls_as_its_anchor_index() -> None:
    student = ToyVelocity()
    sigmas = FixedSchedule().sigmas(torch.zeros(4, 3), lambda level: level)
    simulate_to_anchor(student, torch.randn(4, 2), sigmas, labels([0] * 4), anchor=(3, 0, 1, 3), num_calls=3)
    assert student.calls == [3, 2, 2]


def test_a_process_without_live_samples_makes_the_same_number_of_calls_and_moves_nothing() -> None:
    student, noise = ToyVelocity(), torch.randn(2, 2)
    sigmas = FixedSchedule().sigmas(torch.zeros(2, 3), lambda level: level)
    trajectory = simulate_to_anchor(student, noise, sigmas, labels([0, 1]), anchor=(0, 0), num_calls=3)
    assert student.calls == [1, 1, 1]
    assert torch.equal(trajectory.anchor.x_sigma, noise)


def test_the_simulation_keeps_no_graph() -> None:
    sigmas = FixedSchedule().sigmas(torch.zeros(2, 3), lambda level: level)
    trajectory = simulate_whole(ToyVelocity(), torch.randn(2, 2), sigmas, labels([0, 1]), anchor=(1, 3))
    assert trajectory.final is not None and not trajectory.final.requires_grad


def test_the_recorded_simulation_is_reproduced_from_its_velocities() -> None:
    stored = {name: torch.from_numpy(value) for name, value in arrays("iter_default").items()}
    calls = iter(stored["all_v"])
    trajectory = simulate_whole(
        lambda point, cond: next(calls),
        stored["x_T"],
        stored["sched_sigmas"][:-1].expand(4, -1),
        labels([0] * 4),
        anchor=tuple(stored["randint"].tolist()),
    )
    expected = stored["all_xt"][stored["randint"], torch.arange(4)]
    torch.testing.assert_close(trajectory.anchor.x_sigma, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trajectory.final, stored["all_xt"][-1], rtol=1e-4, atol=1e-5)
