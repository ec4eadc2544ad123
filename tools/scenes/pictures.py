"""Pictures of scenes: objects placed at random within what a prompt says, on a ground with dots.

Positions, sizes, tints, backgrounds and styles that a prompt leaves open vary freely. So do the dots: some hundred
cells of the ground, each with one or none. They are what a few steps cannot draw: a step from far away answers a mean,
and the mean of a dot and none is a faint one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy
from numpy.typing import NDArray
from PIL import Image

from fewstep.embedded.scenes.detector import CELL
from fewstep.embedded.scenes.grammar import BACKGROUNDS, STYLES, Group, Scene
from fewstep.embedded.scenes.judging import lies
from fewstep.embedded.scenes.task import Scenes
from tools.scenes.sprites import DOTS, RGB, RGBTriple, sprite

Cell = tuple[int, int]
"""Column and row."""
IMAGE_SIZE = Scenes.image_size
SIDES = {1: (22, 32), 2: (16, 22), 3: (16, 22)}
"""Longer side of small and of big objects in pixels, by how many there are."""
GAP = 1
"""Pixels between the boxes of two objects, across or down, at least."""
DOT_SHARE = 0.25
"""Of the free cells of the ground that hold a dot."""
DOT = 2
"""Side of a dot in pixels; it stands in the middle of its cell."""


@dataclass(frozen=True)
class Placed:
    """An object in a picture: its box in pixels (left, top, width, height), what it is, and whether it is spoilt."""

    group: int
    noun: str
    tint: str | None
    side: int
    left: int
    top: int
    width: int
    height: int
    clear: bool = True

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, x and y in pixels."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of the cells that the box touches."""
        right, bottom = self.left + self.width, self.top + self.height
        return slice(self.top // CELL, -(-bottom // CELL)), slice(self.left // CELL, -(-right // CELL))


@dataclass(frozen=True)
class Drawn:
    """A picture, uint8 ``(48, 48, 3)``, of a scene, and what was drawn where; whether cells of the ground are murky.

    The ground is what no object's box touches, nor what a spoilt one leaves around its box.
    """

    scene: Scene
    pixels: NDArray[numpy.uint8] = field(repr=False)
    objects: tuple[Placed, ...]
    background: str
    style: str
    ground: Mapping[Cell, bool]


class Brush:
    """How things are drawn onto a canvas."""

    def is_clear(self) -> bool:
        """Decide whether the next object is drawn as it is."""
        return True

    def draw_object(self, canvas: Image.Image, placed: Placed, style: str) -> None:
        """Draw an object, clear or not."""
        picture = sprite(placed.noun, style, placed.tint, placed.side)
        canvas.paste(picture, (placed.left, placed.top), picture)

    def draw_dots(self, canvas: Image.Image, cells: Mapping[Cell, bool], colour: RGBTriple) -> frozenset[Cell]:
        """Draw a dot into those free cells of the ground that hold one, and name the cells that are not clear."""
        for column, row in (cell for cell, dotted in cells.items() if dotted):
            canvas.paste(colour, dot_box(column, row))
        return frozenset()


def draw(scene: Scene, rng: random.Random, brush: Brush | None = None) -> Drawn:
    """Draw one of the pictures that a scene allows."""
    brush = brush or Brush()
    style = scene.style or rng.choice(STYLES)
    background = scene.background or rng.choice(BACKGROUNDS)
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), RGB[background])
    placed = _place(scene, style, rng)
    free = {cell: rng.random() < DOT_SHARE for cell in _free_cells(placed)}
    murky = brush.draw_dots(canvas, free, DOTS[background])
    bare = numpy.asarray(canvas)
    objects = tuple(replace(one, clear=brush.is_clear()) for one in placed)
    # what is not clear reaches beyond its box, and comes first
    for one in sorted(objects, key=lambda each: each.clear):
        brush.draw_object(canvas, one, style)
    pixels = numpy.asarray(canvas)
    same = (bare == pixels).reshape(IMAGE_SIZE // CELL, CELL, IMAGE_SIZE // CELL, CELL, 3).all(axis=(1, 3, 4))
    ground = {(column, row): (column, row) in murky for column, row in free if same[row, column]}
    return Drawn(scene, pixels, objects, background, style, ground)


def dot_box(column: int, row: int) -> tuple[int, int, int, int]:
    """Where the dot of a cell is, in pixels: left, top, and what is right of and below it."""
    left, top = (CELL * number + (CELL - DOT) // 2 for number in (column, row))
    return left, top, left + DOT, top + DOT


def _free_cells(objects: Sequence[Placed]) -> list[Cell]:
    """The cells that no object's box touches."""
    free = numpy.ones((IMAGE_SIZE // CELL, IMAGE_SIZE // CELL), bool)
    for one in objects:
        free[one.cells] = False
    return [(column, row) for row, column in numpy.argwhere(free).tolist()]


def _place(scene: Scene, style: str, rng: random.Random) -> tuple[Placed, ...]:
    while True:
        sized = [
            (number, group, _side(group, scene.num_objects, rng))
            for number, group in enumerate(scene.groups)
            for _ in range(group.count)
        ]
        for _ in range(60):
            objects = _dropped(sized, scene.relation, style, rng)
            if objects is not None:
                return objects


def _side(group: Group, num_objects: int, rng: random.Random) -> int:
    small, big = SIDES[num_objects]
    return {"small": small, "big": big, None: rng.choice((small, big))}[group.size]


def _dropped(
    sized: Sequence[tuple[int, Group, int]], relation: str | None, style: str, rng: random.Random
) -> tuple[Placed, ...] | None:
    """Drop objects with their corner at that of any cell, unless one does not go with those before it.

    At places of a pixel each a network of this size spends most of its training on drawing the same thing 16 times.
    """
    objects: list[Placed] = []
    for number, group, side in sized:
        width, height = sprite(group.noun, style, group.tint, side).size
        # not randrange, which takes most of the time of a picture
        left, top = (CELL * int(rng.random() * (1 + (IMAGE_SIZE - length) // CELL)) for length in (width, height))
        new = Placed(number, group.noun, group.tint, side, left, top, width, height)
        if not all(_apart(new, one) and _related(one, new, relation) for one in objects):
            return None
        objects.append(new)
    return tuple(objects)


def _apart(a: Placed, b: Placed) -> bool:
    return (
        max(a.left, b.left) - min(a.left + a.width, b.left + b.width) >= GAP
        or max(a.top, b.top) - min(a.top + a.height, b.top + b.height) >= GAP
    )


def _related(a: Placed, b: Placed, relation: str | None) -> bool:
    """Whether an object lies to a later one as said, if it is of the first group and that of the second."""
    return relation is None or a.group == b.group or lies(a.centre, b.centre, relation)
