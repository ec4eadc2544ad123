from pathlib import Path

import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricError, Picture, PromptItem
from fewstep.scores.metrics.digits import DigitsMetric, named
from fewstep.scores.scoring import measure
from tests.scores.tiny_digits import write_digits
from tests.scores.tiny_pictures import metric_of, pattern, scores_of


@pytest.fixture
def metric() -> DigitsMetric:
    made = metric_of("digits")
    made.load(torch.device("cpu"))
    return made


def test_a_picture_scores_one_for_its_own_prompt_and_zero_for_another(metric: DigitsMetric, tmp_path: Path) -> None:
    (right,) = write_digits(tmp_path, [24])
    wrong = Picture(right.path, PromptItem("w", "a cyan handwritten eight"), seed=0)
    assert right.item.text == "a yellow handwritten three"
    assert scores_of(metric, [right, wrong]) == [1.0, 0.0]


def test_what_a_prompt_leaves_open_may_be_anything(metric: DigitsMetric, tmp_path: Path) -> None:
    (picture,) = write_digits(tmp_path, [24])
    prompts = ("a handwritten three", "a yellow handwritten digit", "a red handwritten digit")
    asked = [Picture(picture.path, PromptItem(text, text), seed=0) for text in prompts]
    assert scores_of(metric, asked) == [1.0, 1.0, 0.0]


def test_the_finding_says_what_was_seen(metric: DigitsMetric, tmp_path: Path) -> None:
    (finding,) = metric.examine(write_digits(tmp_path, [24]))
    assert finding.details == {"digit": "three", "colour": "yellow"}


def test_a_prompt_names_its_digit_and_colour_wherever_they_stand() -> None:
    assert named("Nine, drawn in magenta.") == (9, 4)


def test_a_prompt_about_something_else_is_refused_before_anything_is_drawn(metric: DigitsMetric) -> None:
    with pytest.raises(ConfigError, match="digits cannot score the prompt 'a dog', which names neither a digit"):
        metric.check([PromptItem("a", "a red handwritten one"), PromptItem("b", "a dog")])


def test_a_picture_of_another_size_is_named(metric: DigitsMetric, tmp_path: Path) -> None:
    (picture,) = write_digits(tmp_path, [24])
    pattern(20, 32).save(picture.path)
    with pytest.raises(MetricError, match=r"000\.png \(prompt d24, seed 0\): it has 20 x 32 pixels"):
        scores_of(metric, [picture])


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(list(range(14)), 0.0), ([4, 11, 18], 6 / 7), ([0, 0, 1, 2, 3, 4, 5], 1 / 7)],
    ids=["every colour as often", "one colour", "one colour in the place of another"],
)
def test_colours_are_measured_by_their_distance_from_equal_shares(
    kinds: list[int], expected: float, tmp_path: Path
) -> None:
    # full prompts stand colour by colour
    drawn = write_digits(tmp_path, kinds)
    asked = [Picture(picture.path, PromptItem("o", "a handwritten digit"), seed=0) for picture in drawn]
    assert measure(metric_of("colours"), asked, torch.device("cpu")) == {"colours": pytest.approx(expected, abs=1e-12)}


def test_colours_of_a_prompt_that_names_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"colours cannot score the prompt 'a red handwritten one'.*digits-open"):
        metric_of("colours").check([PromptItem("a", "a red handwritten one")])
