"""How a model is asked for: MODEL,KEY=VALUE,..."""

import pytest

from fewstep.errors import ConfigError
from fewstep.sampling.model_spec import parse_spec


def test_choices_follow_the_model() -> None:
    spec = parse_spec("owner/name,steps=4,guidance_scale=1.5,name=mine,lora=factors,lora_scale=0.8")
    assert (spec.model, spec.steps, spec.guidance_scale, spec.name) == ("owner/name", 4, 1.5, "mine")
    assert (spec.lora, spec.lora_scale) == ("factors", 0.8)


def test_sigmas_are_separated_by_slashes() -> None:
    assert parse_spec("m,sigmas=1/0.9/0.75/0.5").sigmas == (1.0, 0.9, 0.75, 0.5)


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", "", ".hidden"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which is to be a folder's name too; use letters, digits, dots, hyphens"):
        parse_spec(f"m,name={name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,step=4", r"--model 'm,step=4' sets step to '4': Extra inputs .* What can be set is name, steps, sigmas,"),
        ("m,steps=four", r"sets steps to 'four': Input should be a valid integer"),
        ("m,steps", r"'steps' in --model 'm,steps' is no KEY=VALUE"),
        ("m,steps=3,sigmas=1/0.5", r"has 2 sigmas but steps=3; leave steps out"),
    ],
)
def test_a_choice_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(text)
