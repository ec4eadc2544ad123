"""Objects that are not clear, as too few steps leave them: faint, soft, doubled, or mixed with another.

The detector learns from them what it shall not take for a thing. The ranges keep a distance from what it shall take:
an opaque object as sharp as the autoencoder draws it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from PIL import Image, ImageFilter

from fewstep.embedded.scenes.grammar import NOUNS
from tools.scenes.pictures import Brush, Cell, Placed, dot_box
from tools.scenes.sprites import RGBTriple, sprite

SHARE = 0.5
"""Of the objects of a picture that are spoilt."""
FAINT = (0.15, 0.7)
"""Opacity."""
SOFT = (1.6, 3.0)
"""Standard deviation of a blur in pixels."""
APART = (3, 8)
"""Pixels between the two halves of a doubled object."""
MIXED = (0.35, 0.65)
"""Opacity of the other one."""
MURKY = (0.02, 0.3)
"""Of the free cells whose dot is faint."""
FAINT_DOT = (0.25, 0.7)
"""Opacity of such a dot."""


class Spoiler(Brush):
    """Spoils some of the objects and of the dots that it draws; which ones, is drawn from ``rng``."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ways = (self._faint, self._soft, self._doubled, self._mixed)

    def draw_dots(self, canvas: Image.Image, cells: Mapping[Cell, bool], colour: RGBTriple) -> frozenset[Cell]:
        """Draw the dots of a ground; in half of the grounds some cells have a faint one instead of it or of none."""
        share = self.rng.choice((0.0, self.rng.uniform(*MURKY)))
        murky = frozenset(cell for cell in cells if self.rng.random() < share)
        super().draw_dots(canvas, {cell: dotted and cell not in murky for cell, dotted in cells.items()}, colour)
        for column, row in murky:
            box = dot_box(column, row)
            ground = canvas.crop(box)
            canvas.paste(Image.blend(ground, Image.new("RGB", ground.size, colour), self.rng.uniform(*FAINT_DOT)), box)
        return murky

    def is_clear(self) -> bool:
        return self.rng.random() >= SHARE

    def draw_object(self, canvas: Image.Image, placed: Placed, style: str) -> None:
        if placed.clear:
            super().draw_object(canvas, placed, style)
        else:
            picture = sprite(placed.noun, style, placed.tint, placed.side)
            self.rng.choice(self.ways)(canvas, picture, placed, style)

    def _faint(self, canvas: Image.Image, picture: Image.Image, placed: Placed, style: str) -> None:
        _paste(canvas, _thinned(picture, self.rng.uniform(*FAINT)), placed.left, placed.top)

    def _soft(self, canvas: Image.Image, picture: Image.Image, placed: Placed, style: str) -> None:
        radius = self.rng.uniform(*SOFT)
        margin = round(2 * radius)
        wide = Image.new("RGBA", (picture.width + 2 * margin, picture.height + 2 * margin))
        wide.paste(picture, (margin, margin))
        softened = wide.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        _paste(canvas, softened, placed.left - margin, placed.top - margin)

    def _doubled(self, canvas: Image.Image, picture: Image.Image, placed: Placed, style: str) -> None:
        right, down = (self.rng.choice((-1, 1)) * self.rng.randint(*APART) for _ in range(2))
        _paste(canvas, _thinned(picture, 0.5), placed.left + right, placed.top + down)
        _paste(canvas, _thinned(picture, self.rng.uniform(0.5, 0.7)), placed.left, placed.top)

    def _mixed(self, canvas: Image.Image, picture: Image.Image, placed: Placed, style: str) -> None:
        _paste(canvas, picture, placed.left, placed.top)
        noun = self.rng.choice([noun for noun in NOUNS if noun != placed.noun])
        other = sprite(noun, style, placed.tint, placed.side)
        left, top = (round(middle - length / 2) for middle, length in zip(placed.centre, other.size, strict=True))
        _paste(canvas, _thinned(other, self.rng.uniform(*MIXED)), left, top)


def _thinned(picture: Image.Image, opacity: float) -> Image.Image:
    thin = picture.copy()
    thin.putalpha(picture.getchannel("A").point(lambda value: round(opacity * value)))
    return thin


def _paste(canvas: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    canvas.paste(picture, (left, top), picture)
