"""What ships of scenes: its prompts, its detector on pictures it never saw, and its reference."""

import random
from collections import Counter

import pytest
import torch

from fewstep.embedded.scenes.grammar import parse
from fewstep.embedded.scenes.judging import CATEGORIES, category, is_right
from fewstep.embedded.scenes.task import Scenes
from fewstep.scores.statistics.frechet import frechet_distance
from tools.scenes import shipping
from tools.scenes.pictures import draw
from tools.scenes.workshop import pixels_of

TASK = Scenes()


def test_the_prompts_are_a_hundred_of_each_category() -> None:
    scenes = [parse(prompt) for prompt in TASK.prompts("scenes")]
    assert Counter(map(category, scenes)) == dict.fromkeys(CATEGORIES, 100)
    assert not any(scene.held_out for scene in scenes)
    assert tuple(scenes) == shipping.prompts(100, seed=10)


def test_held_out_prompts_are_of_combinations_that_no_training_is_asked_for() -> None:
    scenes = [parse(prompt) for prompt in TASK.prompts("scenes-held-out")]
    assert Counter(map(category, scenes)) == dict.fromkeys(CATEGORIES[1:], 100)
    assert all(scene.held_out and scene.turned.held_out for scene in scenes)


def test_training_prompts_are_many_and_never_held_out() -> None:
    prompts = TASK.training_prompts()
    assert len(set(prompts)) > 3_000
    assert not any(parse(prompt).held_out for prompt in prompts)
    assert prompts == TASK.training_prompts()


@pytest.mark.parametrize("kind", ["scenes", "scenes-held-out"])
def test_the_detector_judges_real_pictures_that_it_never_saw(kind: str) -> None:
    rng = random.Random(4711)
    scenes = [parse(prompt) for prompt in TASK.prompts(kind)]
    seen, features = TASK.load_judge().see(pixels_of([draw(scene, rng) for scene in scenes]))
    right = Counter(category(scene) for scene, found in zip(scenes, seen, strict=True) if is_right(scene, found))
    assert all(right[category(scene)] >= 98 for scene in scenes), right
    if kind == "scenes":
        # a quarter of the reference's number, whose own error is most of this; the teacher's is ten times as far
        assert frechet_distance(TASK.load_reference(), features) < 0.5


def test_the_reference_is_of_four_pictures_of_each_prompt_in_their_order() -> None:
    reference = TASK.load_reference()
    assert reference.shape == (2_000, 128) and reference.dtype == torch.float32
    rng, detector = random.Random(11), TASK.load_judge()
    first = [draw(parse(prompt), rng) for prompt in TASK.prompts("scenes")[:20]]
    torch.testing.assert_close(detector.see(pixels_of(first))[1], reference[:20], rtol=1e-3, atol=1e-3)
