"""The units of guidance: what a call is given, and what weighs the difference of two velocities."""

from typing import Any

import pytest

from fewstep.backbones.guidance import Guidance

FROM_ZERO = Guidance(off=0.0, offset=1.0)
SPELLED_OUT = Guidance(argument="true_cfg_scale", null_prompt=" ", spelled_out=True)


class Pipeline:
    def __call__(self, guidance_scale: float | None = None, true_cfg_scale: float = 4.0) -> None: ...


@pytest.mark.parametrize(("guidance", "scale", "weight"), [(Guidance(), 4.5, 4.5), (FROM_ZERO, 4.0, 5.0)])
def test_weight_and_scale_are_inverse(guidance: Guidance, scale: float, weight: float) -> None:
    assert guidance.weight(scale) == weight
    assert guidance.scale(weight) == scale


@pytest.mark.parametrize("guidance", [Guidance(), FROM_ZERO, SPELLED_OUT])
def test_off_is_weight_one(guidance: Guidance) -> None:
    assert guidance.weight(guidance.off) == 1.0


@pytest.mark.parametrize(
    ("guidance", "scale", "call"),
    [
        (Guidance(), 4.5, {"guidance_scale": 4.5}),
        (SPELLED_OUT, 4.0, {"true_cfg_scale": 4.0, "negative_prompt": [" ", " "]}),
        (SPELLED_OUT, 1.0, {"true_cfg_scale": 1.0}),
    ],
)
def test_call_guides_with_the_familys_own_argument(guidance: Guidance, scale: float, call: dict[str, Any]) -> None:
    assert guidance.call(scale, num_prompts=2) == call


@pytest.mark.parametrize(
    ("guidance", "scale"), [(Guidance(), None), (SPELLED_OUT, 4.0), (Guidance(default=3.5), 3.5), (FROM_ZERO, None)]
)
def test_default_scale_is_the_familys_or_that_of_its_own_argument(guidance: Guidance, scale: float | None) -> None:
    assert guidance.default_scale(Pipeline) == scale
