"""Pictures of scenes: objects placed at random within what a prompt says, drawn on a plain ground.

Positions, sizes, tints, backgrounds and styles that a prompt leaves open vary freely.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray
from PIL import Image

from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, Group, Scene
from fewstep.embedded.scenes.judging import lies
from fewstep.embedded.scenes.task import Scenes
from tools.scenes.sprites import RGB, sprite

IMAGE_SIZE = Scenes.image_size
SIDES = {1: (18, 36), 2: (16, 24), 3: (15, 19)}
"""Shortest and longest side of an object in pixels, by how many there are."""
MAX_OVERLAP = 1
"""Pixels by which the boxes of two objects may overlap, either way."""


@dataclass(frozen=True)
class Placed:
    """An object in a picture: its box in pixels (left, top, width, height) and what it is."""

    group: int
    noun: str
    tint: str | None
    side: int
    left: int
    top: int
    width: int
    height: int

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, x and y in pixels."""
        return self.left + self.width / 2, self.top + self.height / 2


@dataclass(frozen=True)
class Drawn:
    """A picture, uint8 ``(48, 48, 3)``, of a scene, and what was drawn where."""

    scene: Scene
    pixels: NDArray[numpy.uint8] = field(repr=False)
    objects: tuple[Placed, ...]
    background: str
    style: str


def draw(scene: Scene, rng: random.Random) -> Drawn:
    """Draw one of the pictures that a scene allows."""
    style = scene.style or rng.choice(STYLES)
    background = scene.background or rng.choice(BACKGROUNDS)
    objects = _place(scene, style, rng)
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), RGB[background])
    for placed in objects:
        picture = sprite(placed.noun, style, placed.tint, placed.side)
        canvas.paste(picture, (placed.left, placed.top), picture)
    return Drawn(scene, numpy.asarray(canvas), objects, background, style)


def _place(scene: Scene, style: str, rng: random.Random) -> tuple[Placed, ...]:
    while True:
        sized = [
            (number, group, _side(group, scene.num_objects, rng))
            for number, group in enumerate(scene.groups)
            for _ in range(group.count)
        ]
        for _ in range(60):
            objects = [_drop(number, group, side, style, rng) for number, group, side in sized]
            if _apart(objects) and _related(objects, scene.relation):
                return tuple(objects)


def _side(group: Group, num_objects: int, rng: random.Random) -> int:
    low, high = SIDES[num_objects]
    middle = (low + high) // 2
    match group.size:
        case "small":
            high = middle - 1
        case "big":
            low = middle + 1
    return rng.randint(low, high)


def _drop(number: int, group: Group, side: int, style: str, rng: random.Random) -> Placed:
    width, height = sprite(group.noun, style, group.tint, side).size
    left, top = rng.randint(0, IMAGE_SIZE - width), rng.randint(0, IMAGE_SIZE - height)
    return Placed(number, group.noun, group.tint, side, left, top, width, height)


def _apart(objects: list[Placed]) -> bool:
    return all(
        min(a.left + a.width, b.left + b.width) - max(a.left, b.left) <= MAX_OVERLAP
        or min(a.top + a.height, b.top + b.height) - max(a.top, b.top) <= MAX_OVERLAP
        for index, a in enumerate(objects)
        for b in objects[:index]
    )


def _related(objects: list[Placed], relation: str | None) -> bool:
    """Whether every object of the first group lies to every one of the second as said."""
    if relation is None:
        return True
    pairs = [(a, b) for a in objects if a.group == 0 for b in objects if b.group == 1]
    return all(lies(a.centre, b.centre, relation) for a, b in pairs)


NOUN_NUMBER = {noun: number for number, noun in enumerate(NOUNS)}
