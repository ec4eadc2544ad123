"""The prompts of ``scenes``: what a picture shows, as a value, as a sentence, and back.

A sentence names one or two groups of objects, perhaps how the second lies to the first, the background and the style::

    two red apples to the left of a cat, on blue
    a big whale, flat

Whatever it leaves open (positions, sizes, colours, style) varies freely in the pictures.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace

from fewstep.errors import shown

FOOD = ("apple", "banana", "carrot", "cherry", "doughnut", "mushroom", "pizza", "strawberry", "watermelon")
ANIMALS = (
    "butterfly",
    "cat",
    "dog",
    "fox",
    "frog",
    "beetle",
    "octopus",
    "panda",
    "penguin",
    "pig",
    "snail",
    "turtle",
    "whale",
)
NATURE = ("cactus", "cloud", "flower", "heart", "moon", "star", "tree")
THINGS = (
    "ball",
    "balloon",
    "bell",
    "car",
    "crown",
    "gift",
    "house",
    "key",
    "rocket",
    "snowman",
    "umbrella",
)
NOUNS = (*FOOD, *ANIMALS, *NATURE, *THINGS)
IRREGULAR = {"cherry": "cherries", "strawberry": "strawberries", "butterfly": "butterflies", "fox": "foxes"}
IRREGULAR |= {"octopus": "octopuses", "cactus": "cactuses", "snowman": "snowmen"}
COUNTS = ("two", "three")
TINTS = ("red", "green", "blue", "purple")
SIZES = ("small", "big")
BACKGROUNDS = ("white", "black", "yellow", "pink", "cyan", "grey")
STYLES = ("flat", "shaded")
RELATIONS = ("to the left of", "to the right of", "above", "below")
_TURNED = {"to the left of": "to the right of", "to the right of": "to the left of", "above": "below", "below": "above"}
ARTICLES = ("a", "an")
MAX_WORDS = 18
"""Of a sentence, a comma counted as one."""
HELD_OUT_SHARE = 0.1


def plural(noun: str) -> str:
    """Spell several of a noun."""
    return IRREGULAR.get(noun, f"{noun}s")


_SINGULAR = {plural(noun): noun for noun in NOUNS}


@dataclass(frozen=True)
class Group:
    """One or more objects of a kind; ``None`` leaves it open (a size) or as the emoji is drawn (a tint)."""

    noun: str
    count: int = 1
    size: str | None = None
    tint: str | None = None

    def phrase(self) -> str:
        """Spell the group, with its article or number."""
        words = [word for word in (self.size, self.tint) if word] + [
            self.noun if self.count == 1 else plural(self.noun)
        ]
        if self.count > 1:
            return " ".join([COUNTS[self.count - 2], *words])
        return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for: one group, or two with or without a relation of the first to the second."""

    groups: tuple[Group, ...]
    relation: str | None = None
    background: str | None = None
    style: str | None = None

    def sentence(self) -> str:
        """Spell the prompt."""
        first, *others = (group.phrase() for group in self.groups)
        text = " ".join([first, self.relation or "and", *others]) if others else first
        return text + (f", on {self.background}" if self.background else "") + (f", {self.style}" if self.style else "")

    @property
    def num_objects(self) -> int:
        """How many objects there are in all."""
        return sum(group.count for group in self.groups)

    @property
    def turned(self) -> Scene:
        """The same pictures, asked for the other way round: a cat above a dog is a dog below a cat."""
        relation = None if self.relation is None else _TURNED[self.relation]
        return replace(self, groups=self.groups[::-1], relation=relation)

    @property
    def held_out(self) -> bool:
        """Whether no training is asked for this combination (whatever its counts, sizes, background and style).

        A single plain noun always is; a tenth of the tinted nouns and of the pairs in this order with their relation
        is not. A pair may be asked for the other way round, a tinted noun beside another one.
        """
        shown = [(group.noun, group.tint) for group in self.groups]
        if len(shown) == 1 and shown[0][1] is None:
            return False
        return _share(repr((shown, self.relation))) < HELD_OUT_SHARE


def _share(name: str) -> float:
    """Turn a name into a number of [0, 1), the same one everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def vocabulary() -> list[str]:
    """List the words of all sentences."""
    relations = [word for relation in RELATIONS for word in relation.split()]
    words = [*ARTICLES, "and", "on", *relations, *COUNTS, *TINTS, *SIZES, *BACKGROUNDS, *STYLES]
    return list(dict.fromkeys([*words, *NOUNS, *(plural(noun) for noun in NOUNS)]))


_GROUP = r"(?:(an?|two|three) (?:(small|big) )?(?:(red|green|blue|purple) )?([a-z]+))"
_SENTENCE = re.compile(
    rf"{_GROUP}(?: (and|to the left of|to the right of|above|below) {_GROUP})?"
    rf"(?:, on ({'|'.join(BACKGROUNDS)}))?(?:, ({'|'.join(STYLES)}))?"
)


def parse(sentence: str) -> Scene:
    """Read a sentence of the grammar.

    Raises:
        ValueError: It is not one.
    """
    found = _SENTENCE.fullmatch(sentence)
    if found is None:
        raise ValueError(
            f"{shown(sentence)} is no sentence of scenes, such as 'two red apples to the left of a cat, on white'"
        )
    *first, joined = found.groups()[:5]
    second, background, style = found.groups()[5:9], found[10], found[11]
    groups = [_group(sentence, *first)] + ([_group(sentence, *second)] if joined else [])
    scene = Scene(tuple(groups), None if joined == "and" else joined, background, style)
    if scene.sentence() != sentence:
        raise ValueError(f"{shown(sentence)} is not spelt as scenes spells it: {shown(scene.sentence())}")
    return scene


def _group(sentence: str, number: str, size: str | None, tint: str | None, noun: str) -> Group:
    count = COUNTS.index(number) + 2 if number in COUNTS else 1
    singular = noun if count == 1 else _SINGULAR.get(noun, "")
    if singular not in NOUNS:
        raise ValueError(f"{shown(noun)} in {shown(sentence)} is no noun of scenes: {', '.join(NOUNS)}")
    return Group(singular, count, size, tint)


def draw_scene(rng: random.Random, *, held_out: bool = False) -> Scene:
    """Draw a scene: a third with one object, a third with two or three alike, a third with two kinds.

    Args:
        rng: Where the choice comes from.
        held_out: Draw among the combinations that no training is asked for in either order, instead of among those
            that it is.
    """
    while True:
        scene = _draw(rng)
        chosen = scene.held_out and scene.turned.held_out if held_out else not scene.held_out
        if chosen and len(scene.sentence().replace(",", " ,").split()) <= MAX_WORDS:
            return scene


def _draw(rng: random.Random) -> Scene:
    kind = rng.random()
    if kind < 0.30:
        groups: tuple[Group, ...] = (_draw_group(rng, 1),)
    elif kind < 0.50:
        groups = (_draw_group(rng, rng.choice((2, 3))),)
    else:
        counts = rng.choice(((1, 1), (1, 1), (1, 1), (1, 2), (2, 1)))
        first = _draw_group(rng, counts[0])
        second = _draw_group(rng, counts[1])
        while second.noun == first.noun:
            second = _draw_group(rng, counts[1])
        groups = (first, second)
    relation = rng.choice(RELATIONS) if len(groups) == 2 and rng.random() < 0.6 else None
    background = rng.choice(BACKGROUNDS) if rng.random() < 0.5 else None
    return Scene(groups, relation, background, rng.choice(STYLES) if rng.random() < 0.25 else None)


def _draw_group(rng: random.Random, count: int) -> Group:
    size = rng.choice(SIZES) if rng.random() < 0.2 else None
    return Group(rng.choice(NOUNS), count, size, rng.choice(TINTS) if rng.random() < 0.25 else None)
