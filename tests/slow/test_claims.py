"""What the demo reaches wherever it runs, on training seed 0: gates, not the figures of one machine."""

import pytest

from tests.slow.conftest import DemoRun


def test_the_teacher_is_near_enough_to_real_data_to_be_worth_distilling(demo: DemoRun) -> None:
    assert demo.printed["teacher_50"]["fd"] <= 2.2 * demo.printed["real"]["fd"]
    assert demo.printed["teacher_50"]["accuracy"] >= 0.99


# docs/demo.md claims something of the mean of three recorded trainings (tests/docs/test_claims.py). Here is one, and on
# another processor it is another one: it rounds differently from its first step on. The recorded three spread by .05 in
# FD and .002 in accuracy; 4,200 pictures add .0025 in accuracy and .005 in recall and coverage. From their mean (FD
# 1.16, .61 of the teacher's; accuracy .975; recall .92) each gate is four such spreads away.


def test_the_student_is_near_the_teacher_of_fifty_steps(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["fd"] <= 1.5 * demo.printed["teacher_50"]["fd"]


def test_the_student_is_far_better_than_the_teacher_of_as_many_steps(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["fd"] <= 0.75 * demo.printed["teacher_4"]["fd"]


@pytest.mark.parametrize(
    ("figure", "low", "high"),
    [
        ("accuracy", 0.96, 1.0),
        ("recall", 0.9, 1.0),
        ("coverage", 0.8, 1.0),
        ("tv", 0.0, 0.2),
        ("diversity", 0.7, 1.2),
    ],
)
def test_the_student_draws_what_is_asked_in_all_its_variety(
    figure: str, low: float, high: float, demo: DemoRun
) -> None:
    assert low <= demo.printed["student_4"][figure] <= high


def test_teacher_and_student_are_compared_on_equal_terms(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["guidance"] == 1.0
    assert demo.printed["teacher_50"]["guidance"] in (1.0, 1.5, 2.0, 3.0)
    assert demo.printed["teacher_4"]["guidance"] in (1.0, 1.5, 2.0, 3.0)


def test_the_demo_keeps_to_its_memory(demo: DemoRun) -> None:
    assert demo.printed["peak_mib"] < 3 * 1024
