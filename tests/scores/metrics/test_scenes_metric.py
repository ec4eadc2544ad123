import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.embedded.scenes.grammar import parse
from fewstep.embedded.scenes.judging import MAX_MURKY
from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricError, Picture, PromptItem
from fewstep.scores.metrics.scenes import ScenesMetric
from fewstep.scores.scoring import measure
from tests.scores.tiny_pictures import metric_of, pattern, scores_of
from tests.scores.tiny_scenes import write_scenes
from tools.scenes.pictures import Brush, draw
from tools.scenes.spoiling import Spoiler

PROMPT = "two green apples to the left of a cat, on white"


@pytest.fixture
def metric() -> ScenesMetric:
    made = metric_of("scenes")
    made.load(torch.device("cpu"))
    return made


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        (PROMPT, 1.0),
        ("two green apples and a cat", 1.0),  # what a prompt leaves open may be anything
        ("two green apples to the right of a cat, on white", 0.0),
        ("two green apples above a cat, on white", 0.0),
        ("a green apple to the left of a cat, on white", 0.0),
        ("two apples to the left of a cat, on white", 0.0),
        ("two red apples to the left of a cat, on white", 0.0),
        ("two green apples to the left of a dog, on white", 0.0),
        ("two green apples to the left of a cat, on black", 0.0),
        ("a cat", 0.0),
    ],
)
def test_a_picture_is_right_when_all_that_is_asked_is_there_and_no_more(
    asked: str, score: float, metric: ScenesMetric, tmp_path: Path
) -> None:
    (drawn,) = write_scenes(tmp_path, [PROMPT])
    assert scores_of(metric, [Picture(drawn.path, PromptItem("p", asked), seed=0)]) == [score]


def test_the_finding_says_what_was_seen(metric: ScenesMetric, tmp_path: Path) -> None:
    (finding,) = metric.examine(write_scenes(tmp_path, [PROMPT]))
    assert finding.details == {
        "found": ["cat", "green apple", "green apple"],
        "background": "white",
        "clear": True,
        "murky_cells": pytest.approx(0, abs=1),
    }


def spoilt(folder: Path, *, things: bool, seed: int) -> tuple[Picture, int]:
    """A picture whose things, or whose dots, few steps would have left so; and how many cells are murky."""
    rng = random.Random(seed)
    spoiler = Spoiler(rng)
    spoiler.is_clear = lambda: not things  # type: ignore[method-assign]
    if things:
        spoiler.draw_dots = Brush().draw_dots  # type: ignore[method-assign]
    drawn = draw(parse(PROMPT), rng, spoiler)
    path = folder / f"{seed}.png"
    Image.fromarray(drawn.pixels).save(path)
    return Picture(path, PromptItem("p", PROMPT), seed=0), sum(drawn.ground.values())


def test_things_that_are_faint_soft_doubled_or_mixed_are_told_from_clear_ones(
    metric: ScenesMetric, tmp_path: Path
) -> None:
    findings = metric.examine([spoilt(tmp_path, things=True, seed=seed)[0] for seed in range(30)])
    # which of them the detector misses is a matter of a few pixels
    assert sum(not one.details["clear"] or one.score == 0.0 for one in findings) >= 28
    assert sum(one.details["murky_cells"] for one in findings) < 60


def test_pictures_with_faint_dots_are_not_right_however_clear_their_things(
    metric: ScenesMetric, tmp_path: Path
) -> None:
    pictures, cells = zip(*(spoilt(tmp_path, things=False, seed=seed) for seed in range(30)), strict=True)
    findings = metric.examine(list(pictures))
    assert all(one.details["clear"] for one in findings)
    assert all(abs(one.details["murky_cells"] - count) <= 3 for one, count in zip(findings, cells, strict=True))
    many = [one.score for one, count in zip(findings, cells, strict=True) if count > MAX_MURKY + 3]
    assert len(many) > 5 and not any(many)


def test_the_score_is_the_mean_of_the_categories(tmp_path: Path) -> None:
    right = write_scenes(tmp_path, ["a cat", "a dog", "a whale", "a cat above a dog"])
    wrong = Picture(right[0].path, PromptItem("w", "a cat below a dog"), seed=0)
    found = measure(metric_of("scenes"), [*right, wrong], torch.device("cpu"))
    assert found == {"scenes": 0.75, "scenes_single_object": 1.0, "scenes_position": 0.5, "scenes_clear": 0.75}


def test_a_prompt_about_something_else_is_refused_before_anything_is_drawn(metric: ScenesMetric) -> None:
    message = r"scenes cannot score a prompt: 'a lighthouse at dusk' is no sentence of scenes.*Leave the metric out"
    with pytest.raises(ConfigError, match=message):
        metric.check([PromptItem("a", "a cat"), PromptItem("b", "a lighthouse at dusk")])


def test_a_picture_of_another_size_is_named(metric: ScenesMetric, tmp_path: Path) -> None:
    (picture,) = write_scenes(tmp_path, ["a cat"])
    pattern(32, 32).save(picture.path)
    with pytest.raises(MetricError, match=r"it has 32 x 32 pixels, and scenes reads only its own pictures of 48 x 48"):
        scores_of(metric, [picture])


def test_a_checkpoint_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scenes\.source is x, but its detector ships inside the package"):
        metric_of("scenes", source="x").check([PromptItem("a", "a cat")])
