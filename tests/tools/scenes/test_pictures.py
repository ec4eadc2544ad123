"""Pictures show what their scenes say, and vary in what they leave open."""

import random

import numpy
import pytest

from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, TINTS, Group, Scene, draw_scene
from fewstep.embedded.scenes.judging import lies
from tools.scenes.pictures import IMAGE_SIZE, MAX_OVERLAP, draw
from tools.scenes.sprites import RGB, SIDE, sprite


def test_what_is_drawn_is_what_the_scene_says_whole_and_apart() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = draw_scene(rng)
        picture = draw(scene, rng)
        assert picture.pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert [placed.noun for placed in picture.objects] == [
            group.noun for group in scene.groups for _ in range(group.count)
        ]
        for placed in picture.objects:
            assert placed.left >= 0 and placed.left + placed.width <= IMAGE_SIZE
            assert placed.top >= 0 and placed.top + placed.height <= IMAGE_SIZE
        for a, b in ((a, b) for a in picture.objects for b in picture.objects if a is not b):
            across = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
            down = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
            assert min(across, down) <= MAX_OVERLAP
            if scene.relation and (a.group, b.group) == (0, 1):
                assert lies(a.centre, b.centre, scene.relation)
        assert picture.background == (scene.background or picture.background)
        assert picture.style == (scene.style or picture.style)


def test_what_a_scene_leaves_open_varies() -> None:
    rng = random.Random(1)
    drawn = [draw(Scene((Group("cat"),)), rng) for _ in range(100)]
    assert {picture.background for picture in drawn} == set(BACKGROUNDS)
    assert {picture.style for picture in drawn} == set(STYLES)
    assert len({picture.objects[0].centre for picture in drawn}) > 60
    assert len({picture.objects[0].side for picture in drawn}) > 10


def test_small_is_smaller_than_big() -> None:
    rng = random.Random(2)
    sides = {
        size: [draw(Scene((Group("cat", size=size),)), rng).objects[0].side for _ in range(40)]
        for size in ("small", "big")
    }
    assert max(sides["small"]) < min(sides["big"])


@pytest.mark.parametrize("style", STYLES)
def test_every_noun_has_an_emoji_of_its_own(style: str) -> None:
    seen = {sprite(noun, style, None, 24).tobytes() for noun in NOUNS}
    assert len(seen) == len(NOUNS)
    assert all(max(sprite(noun, style, None, 24).size) == 24 for noun in NOUNS)


@pytest.mark.parametrize("tint", TINTS)
def test_a_tint_gives_its_hue(tint: str) -> None:
    pixels = numpy.asarray(sprite("cat", "flat", tint, SIDE)).astype(float)
    mean = pixels[pixels[..., 3] > 200][:, :3].mean(0)
    nearest = min(TINTS, key=lambda name: float(numpy.square(mean / mean.max() - numpy.array(RGB[name]) / 255).sum()))
    assert nearest == tint
