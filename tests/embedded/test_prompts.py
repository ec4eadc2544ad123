"""The prompts of the embedded teacher, and where each stands."""

import pytest

from fewstep.embedded.digits import prompts


def test_there_are_88_prompts_and_the_null_prompt_comes_last() -> None:
    every = prompts.all_prompts()
    assert len(set(every)) == 89
    assert every[-1] == ""


def test_full_prompt_of_digit_and_colour_stands_at_digit_times_seven_plus_colour() -> None:
    assert prompts.full_prompts()[3 * 7 + 0] == "a red handwritten three"


@pytest.mark.parametrize(
    ("digit", "colour", "prompt"),
    [
        (3, 0, "a red handwritten three"),
        (3, None, "a handwritten three"),
        (None, 0, "a red handwritten digit"),
        (None, None, "a handwritten digit"),
    ],
)
def test_prompt_leaves_out_what_is_open(digit: int | None, colour: int | None, prompt: str) -> None:
    assert prompts.prompt_for(digit, colour) == prompt
