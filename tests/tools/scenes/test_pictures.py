"""Pictures show what their scenes say, and vary in what they leave open."""

import random
from collections import Counter

import numpy
import pytest

from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, TINTS, Group, Scene, draw_scene
from fewstep.embedded.scenes.judging import lies
from tools.scenes.pictures import CELL, DOT_SHARE, GAP, IMAGE_SIZE, SIDES, Brush, dot_box, draw
from tools.scenes.spoiling import Spoiler
from tools.scenes.sprites import DOTS, RGB, SIDE, sprite


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
            across = max(a.left, b.left) - min(a.left + a.width, b.left + b.width)
            down = max(a.top, b.top) - min(a.top + a.height, b.top + b.height)
            assert max(across, down) >= GAP
            if scene.relation and (a.group, b.group) == (0, 1):
                assert lies(a.centre, b.centre, scene.relation)
        assert picture.background == (scene.background or picture.background)
        assert picture.style == (scene.style or picture.style)


def test_what_a_scene_leaves_open_varies() -> None:
    rng = random.Random(1)
    drawn = [draw(Scene((Group("cat"),)), rng) for _ in range(100)]
    assert {picture.background for picture in drawn} == set(BACKGROUNDS)
    assert {picture.style for picture in drawn} == set(STYLES)
    assert len({picture.objects[0].centre for picture in drawn}) > 40
    assert {picture.objects[0].side for picture in drawn} == set(SIDES[1])


def test_small_is_smaller_than_big() -> None:
    rng = random.Random(2)
    sides = {
        size: [draw(Scene((Group("cat", size=size),)), rng).objects[0].side for _ in range(40)]
        for size in ("small", "big")
    }
    assert max(sides["small"]) < min(sides["big"])


def test_a_free_cell_of_the_ground_holds_a_dot_or_none() -> None:
    rng, dotted, free = random.Random(5), 0, 0
    for _ in range(60):
        scene = draw_scene(rng)
        picture = draw(scene, rng)
        ground, colour = RGB[picture.background], DOTS[picture.background]
        assert not any(picture.ground.values())
        for column, row in picture.ground:
            cell = picture.pixels[CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1)]
            left, top, right, bottom = dot_box(0, 0)
            dot = tuple(cell[top, left].tolist())
            assert dot in (ground, colour)
            assert (cell[top:bottom, left:right] == dot).all() and tuple(cell[0, 0].tolist()) == ground
            dotted += dot == colour
        free += len(picture.ground)
    assert dotted / free == pytest.approx(DOT_SHARE, abs=0.03)


def test_a_murky_cell_holds_something_between_a_dot_and_none() -> None:
    rng = random.Random(6)
    murky = 0
    for _ in range(60):
        picture = draw(Scene((Group("cat"),)), rng, Spoiler(rng))
        ground, colour = numpy.array(RGB[picture.background]), numpy.array(DOTS[picture.background])
        for (column, row), is_murky in picture.ground.items():
            left, top, _, _ = dot_box(column, row)
            share = (picture.pixels[top, left] - ground) @ (colour - ground) / numpy.square(colour - ground).sum()
            assert (0.2 < share < 0.75) == is_murky  # what a spoilt object reaches is no ground
            murky += is_murky
    assert murky > 100


def test_a_spoilt_object_differs_from_a_clear_one_and_is_known() -> None:
    rng = random.Random(3)
    scene = Scene((Group("cat"), Group("dog")), "above", "black")
    for seed in range(40):
        state = rng.getstate()
        spoiler = Spoiler(random.Random(seed))
        spoiler.draw_dots = Brush().draw_dots
        spoilt = draw(scene, rng, spoiler)
        rng.setstate(state)
        plain = draw(scene, rng)
        assert all(placed.clear for placed in plain.objects)
        for one, other in zip(spoilt.objects, plain.objects, strict=True):
            assert one.centre == other.centre
            rows, columns = slice(one.top, one.top + one.height), slice(one.left, one.left + one.width)
            apart = numpy.abs(spoilt.pixels[rows, columns] - plain.pixels[rows, columns].astype(float)).mean()
            assert one.clear or apart > 5, (one, apart)
            opaque = numpy.asarray(sprite(one.noun, spoilt.style, one.tint, one.side).getchannel("A")) == 255
            same = (spoilt.pixels[rows, columns] == plain.pixels[rows, columns]).all(axis=-1)
            assert not one.clear or same[opaque].all(), "nothing lies on a clear one"
        if all(placed.clear for placed in spoilt.objects):
            assert numpy.array_equal(spoilt.pixels, plain.pixels)


def test_every_way_of_spoiling_is_used() -> None:
    ways: Counter[str] = Counter()
    spoiler = Spoiler(random.Random(4))
    spoiler.ways = tuple(
        lambda *given, name=way.__name__, way=way: (ways.update([name]), way(*given)) for way in spoiler.ways
    )
    drawn = [draw(Scene((Group("cat"),)), random.Random(seed), spoiler) for seed in range(200)]
    assert sum(not picture.objects[0].clear for picture in drawn) == ways.total() == pytest.approx(100, abs=30)
    assert len(ways) == 4 and min(ways.values()) > 8


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
