"""When a signal fires, when it falls silent, and what it says."""

import pytest

from fewstep.health.guard import SIGNALS, Guard, GuardState
from fewstep.health.settings import HealthConfig


def guard(*, warmup: int = 0, start: int = 4, window: int = 3) -> Guard:
    return Guard(HealthConfig(start=start, window=window), warmup=warmup)


def fired(of: Guard, name: str, values: list[float], *, first: int = 1) -> list[int]:
    """The updates at which a signal begins to fire."""
    return [update for update, value in enumerate(values, first) if of.look({name: value}, update=update)]


def test_a_figure_beyond_its_limit_fires_once_most_of_the_window_is() -> None:
    assert fired(guard(), "fake_lag", [0.1, 0.2, 0.1, 9.0, 0.1, 9.0, 9.0, 9.0, 9.0]) == [6]


@pytest.mark.parametrize(
    ("name", "odd"), [("fake_lag", 1e6), ("cosine", -1.0), ("floored", 1.0), ("norm/dm", 1e6), ("cast", 50.0)]
)
def test_one_odd_look_is_no_alarm_however_odd_it_is(name: str, odd: float) -> None:
    assert fired(guard(), name, [0.1] * 8 + [odd] + [0.1] * 8) == []


def test_a_limit_relative_to_the_runs_own_normal_is_made_of_its_first_looks() -> None:
    for normal in (0.01, 100.0):
        healthy = [normal, 2 * normal, normal, normal]
        assert fired(guard(), "grad_norm/student", [*healthy, *[3.9 * normal] * 6]) == []
        assert fired(guard(), "grad_norm/student", [*healthy, *[4.1 * normal] * 6]) == [6]


def test_nothing_is_judged_in_the_warm_up() -> None:
    assert fired(guard(warmup=10), "fake_lag", [9.0] * 10) == []
    assert fired(guard(warmup=10), "fake_lag", [9.0] * 14) == [13]


def test_a_signal_falls_silent_well_inside_its_limit_and_can_fire_again() -> None:
    watched = guard(window=1)
    values = [4.0, 2.9, 4.0, 2.5, 4.0]  # the limit is 3: at 2.9 it still fires
    assert fired(watched, "fake_lag", values[:3]) == [1]
    assert not watched.healthy
    assert fired(watched, "fake_lag", values[3:4], first=4) == [] and watched.healthy
    assert fired(watched, "fake_lag", values[4:], first=5) == [5]


def test_a_run_is_healthy_again_once_no_look_of_the_window_was_beyond() -> None:
    watched = guard()
    healthy = []
    for update, value in enumerate([0.1, 9.0, 0.1, 0.1, 0.1], 1):
        watched.look({"fake_lag": value}, update=update)
        healthy.append(watched.healthy)
    assert healthy == [True, False, False, False, True]


def test_what_a_guard_remembers_goes_through_a_checkpoint() -> None:
    values = [1.0] * 4 + [9.0] * 2
    whole, before = guard(), guard()
    fired(before, "norm/dm", values[:5])
    after = guard()
    after.state = GuardState.model_validate_json(before.state.model_dump_json())
    assert fired(whole, "norm/dm", values) == fired(after, "norm/dm", values[5:], first=6) == [6]
    assert whole.state == after.state


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (
            "fake_lag",
            [4.0],
            "health/fake_lag is 4 at student update 1, above 3: the fake score has gone less than a quarter of the way "
            "that the student has. If the pictures agree, raise fake_score.lr or student.every, or lower student.lr.",
        ),
        (
            "diversity",
            [0.31],
            "health/diversity is 0.31 at student update 1, below 0.5: different seeds give nearly the same picture. "
            "If the pictures agree, add terms.dp, or lower terms.ca.scale.",
        ),
        (
            "grad_norm/student",
            [0.5, 2.5],
            "grad_norm/student is 2.5 at student update 2, above 4 times 0.5, its median at first: the student's "
            "gradient grows. If the pictures agree, lower student.lr and fake_score.lr.",
        ),
    ],
)
def test_an_alarm_says_figure_limit_meaning_and_remedy(name: str, values: list[float], said: str) -> None:
    watched = guard(start=1, window=1)
    told = [alarm for update, value in enumerate(values, 1) for alarm in watched.look({name: value}, update=update)]
    assert [(alarm.name, alarm.message) for alarm in told] == [(name, said)]


def test_every_signal_has_one_limit() -> None:
    for name, signal in SIGNALS.items():
        assert [signal.above, signal.below, signal.times].count(None) == 2, name
