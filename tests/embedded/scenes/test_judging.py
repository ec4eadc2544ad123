"""What counts as right, for pictures that show exactly what was asked for and for every way to miss it."""

import random
from dataclasses import replace

import pytest

from fewstep.embedded.scenes.detector import Found, Seen
from fewstep.embedded.scenes.grammar import Scene, draw_scene, parse
from fewstep.embedded.scenes.judging import category, is_clear, is_right
from tools.scenes.pictures import draw


def truth(scene: Scene, rng: random.Random) -> Seen:
    picture = draw(scene, rng)
    objects = tuple(Found(placed.noun, placed.tint, *placed.centre) for placed in picture.objects)
    return Seen(objects, picture.background, picture.style)


def test_what_the_renderer_draws_is_right() -> None:
    rng = random.Random(0)
    assert all(is_right(scene, truth(scene, rng)) for scene in (draw_scene(rng) for _ in range(300)))


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("a big cat, flat", "single_object"),
        ("a cat and a dog", "two_object"),
        ("three cats", "counting"),
        ("a red cat", "colors"),
        ("a cat, on pink", "colors"),
        ("a cat above a dog", "position"),
        ("two red cats below a dog, on pink", "position"),
    ],
)
def test_a_prompt_belongs_to_the_hardest_thing_that_it_asks_for(sentence: str, name: str) -> None:
    assert category(parse(sentence)) == name


def test_every_way_to_miss_it_is_wrong() -> None:
    scene = parse("two red cats to the left of a dog, on pink")
    cats, dog = (Found("cat", "red", 8, 10), Found("cat", "red", 8, 30)), Found("dog", None, 36, 20)
    right = Seen((*cats, dog), "pink", "flat")
    assert is_right(scene, right)
    wrong = {
        "ground": replace(right, background="white"),
        "one too few": replace(right, objects=(cats[0], dog)),
        "one too many": replace(right, objects=(*right.objects, Found("key", None, 40, 40))),
        "tint": replace(right, objects=(cats[0], replace(cats[1], tint=None), dog)),
        "tint of the other": replace(right, objects=(*cats, replace(dog, tint="red"))),
        "noun": replace(right, objects=(*cats, replace(dog, noun="pig"))),
        "faint dots": replace(right, murky=9),
        "a shadow of one more": replace(right, objects=(*right.objects, Found("cat", "red", 20, 40, clear=False))),
        "place": replace(right, objects=(cats[0], replace(cats[1], x=44.0), dog)),
    }
    assert {name: is_right(scene, seen) for name, seen in wrong.items()} == dict.fromkeys(wrong, False)
    assert is_right(scene, replace(right, style="shaded"))
    assert is_right(scene, replace(right, murky=8))
    soft = replace(right, objects=(*cats, replace(dog, clear=False)))
    assert is_right(scene, soft) and is_clear(right) and not is_clear(soft)
