"""One id for the conditions of a score, and the refusal to compare across ids."""

from pathlib import Path
from typing import Any

import pytest

from fewstep.errors import ConfigError
from fewstep.evaluation.folder import origin_of
from fewstep.evaluation.models import Side
from fewstep.evaluation.protocol_id import (
    Measured,
    conditions,
    metric_conditions,
    protocol_id,
    require_comparable,
)
from fewstep.scores.metric import MetricSettings
from tests.evaluation.pictures import Brightness, record, task_of


def known(*, texts: tuple[str, ...] = ("a", "b"), seeds: tuple[int, ...] = (0,), **sampling: object) -> dict[str, Any]:
    task = task_of(*texts, seeds=seeds)
    return conditions(origin_of(task, record("x", "student", **sampling)), metric_conditions(Brightness()))


def measured(name: str, told: dict[str, Any], role: Side = "student") -> Measured:
    return Measured(name, role, "brightness", protocol_id(told), told)


@pytest.mark.parametrize(
    "changed",
    [
        known(texts=("a", "c")),
        known(seeds=(1,)),
        known(height=16),
        known(steps=8),
        known(guidance_scale=3.0),
        known(sigmas=(1.0, 0.9, 0.8, 0.7)),
        known(dtype="bf16"),
        {**known(), "versions": {"fewstep": "2"}},
        {**known(), "metric": {"name": "brightness", "settings": {"preprocess": "other"}}},
    ],
    ids=["prompts", "seeds", "resolution", "steps", "guidance", "sigmas", "dtype", "versions", "metric settings"],
)
def test_every_condition_changes_the_id(changed: dict[str, Any]) -> None:
    assert protocol_id(changed).whole != protocol_id(known()).whole


def test_the_same_conditions_have_the_same_id() -> None:
    assert protocol_id(known()) == protocol_id(known())


def test_what_changes_only_speed_is_no_condition() -> None:
    small, large = Brightness(MetricSettings(batch=1)), Brightness(MetricSettings(batch=64))
    assert metric_conditions(small) == metric_conditions(large)


def test_a_checkpoint_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    for place in ("here", "there", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_bytes(b"1" if place != "other" else b"2")
    here, there, other = (
        metric_conditions(Brightness(MetricSettings(source=str(tmp_path / place))))["checkpoint"]
        for place in ("here", "there", "other")
    )
    assert here == there
    assert here != other


def test_two_models_measured_alike_are_compared() -> None:
    assert require_comparable([measured("a", known()), measured("b", known())]) == []


def test_two_models_with_other_steps_are_refused_with_the_difference() -> None:
    with pytest.raises(ConfigError, match=r"brightness of a and of b were measured under .*: steps 4 and 8\. Measure"):
        require_comparable([measured("a", known()), measured("b", known(steps=8))])


def test_the_flag_lets_them_be_compared_and_tells_the_difference() -> None:
    told = require_comparable([measured("a", known()), measured("b", known(steps=8))], allow_different=True)
    assert len(told) == 1
    assert "steps 4 and 8" in told[0]


def test_a_teacher_may_have_other_steps_and_guidance() -> None:
    teacher = measured("t", known(steps=50, guidance_scale=4.5), "teacher")
    assert require_comparable([measured("a", known()), teacher]) == []


def test_a_teacher_with_other_prompts_is_refused() -> None:
    teacher = measured("t", known(steps=50, texts=("a", "z")), "teacher")
    with pytest.raises(
        ConfigError, match=r"brightness of a and of t were measured under different protocols .*prompts"
    ):
        require_comparable([measured("a", known()), teacher])
