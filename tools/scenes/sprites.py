"""The emoji that the pictures of ``scenes`` are made of: an atlas drawn once from two families of SVG files.

Noto emoji (Apache-2.0, shaded) and Fluent emoji, flat (MIT), from the npm packages ``@iconify-json/noto`` and
``@iconify-json/fluent-emoji-flat``. The atlas is kept beside this file, so that a rebuild needs neither npm nor an SVG
library; ``python -m tools.scenes.sprites FOLDER_OF_ICONS_FILES`` draws it again (``pip install resvg_py``).
"""

from __future__ import annotations

import io
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from fewstep.embedded.scenes.grammar import NOUNS, STYLES

ATLAS = Path(__file__).parent / "sprites.png"
SIDE = 64
FAMILIES = {"flat": "fluent-emoji-flat", "shaded": "noto"}
ICONS = dict(zip(NOUNS, NOUNS, strict=True)) | {
    "apple": "red-apple",
    "cherry": "cherries",
    "beetle": "lady-beetle",
    "whale": "spouting-whale",
    "cat": "cat-face",
    "dog": "dog-face",
    "pig": "pig-face",
    "flower": "sunflower",
    "heart": "red-heart",
    "moon": "crescent-moon",
    "tree": "evergreen-tree",
    "ball": "soccer-ball",
    "car": "automobile",
    "gift": "wrapped-gift",
}
RGBTriple = tuple[int, int, int]
RGB: dict[str, RGBTriple] = {
    "red": (235, 40, 45),
    "green": (40, 180, 60),
    "blue": (45, 95, 240),
    "purple": (160, 60, 200),
    "white": (250, 250, 250),
    "black": (25, 25, 28),
    "yellow": (250, 225, 110),
    "pink": (250, 185, 205),
    "cyan": (150, 225, 240),
    "grey": (140, 140, 145),
}
DOTS: dict[str, RGBTriple] = {
    "white": (190, 200, 215),
    "black": (95, 95, 105),
    "yellow": (225, 165, 35),
    "pink": (225, 115, 155),
    "cyan": (80, 165, 200),
    "grey": (200, 200, 205),
}
"""Of the dots on each ground."""


@cache
def _atlas() -> Image.Image:
    with Image.open(ATLAS) as atlas:
        return atlas.convert("RGBA")


@cache
def sprite(noun: str, style: str, tint: str | None, side: int) -> Image.Image:
    """Cut an emoji out of the atlas, tint it and scale its longer side to ``side`` pixels."""
    left, top = NOUNS.index(noun) * SIDE, STYLES.index(style) * SIDE
    whole = _atlas().crop((left, top, left + SIDE, top + SIDE))
    cut = whole.crop(whole.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox())
    if tint is not None:
        cut = _tinted(cut, RGB[tint])
    scale = side / max(cut.size)
    width, height = (max(1, round(length * scale)) for length in cut.size)
    # premultiplied, so that no dark rim appears
    return (
        cut.convert("RGBa")
        .resize((width, height), Image.Resampling.BOX if scale < 0.5 else Image.Resampling.LANCZOS)
        .convert("RGBA")
    )


def _tinted(picture: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Give every part the hue of ``colour`` and keep light and shadow."""
    light = picture.convert("L")
    low = ImageChops.multiply(
        Image.merge(
            "RGB", [light.point(lambda value, c=channel: round(c * (0.35 + 0.65 * value / 255))) for channel in colour]
        ),
        Image.new("RGB", picture.size, (255, 255, 255)),
    )
    # the brightest third goes towards white: eyes and reflections stay visible
    shine = light.point(lambda value: max(0, round((value - 170) * 1.6)))
    tinted = Image.composite(Image.new("RGB", picture.size, (255, 255, 255)), low, shine)
    tinted.putalpha(picture.getchannel("A"))
    return tinted


def draw_atlas(folder: Path) -> Image.Image:
    """Draw every noun of both families, side by side, from ``FAMILY/icons.json`` files in ``folder``."""
    import resvg_py  # type: ignore[import-not-found]

    atlas = Image.new("RGBA", (SIDE * len(NOUNS), SIDE * len(STYLES)))
    for row, style in enumerate(STYLES):
        icons: dict[str, Any] = json.loads((folder / FAMILIES[style] / "icons.json").read_text(encoding="utf-8"))
        for column, noun in enumerate(NOUNS):
            icon = icons["icons"][ICONS[noun]]
            width, height = (icon.get(name, icons[name]) for name in ("width", "height"))
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
            names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            svg = f'<svg {names} width="{SIDE}" height="{SIDE}" viewBox="{box}">{icon["body"]}</svg>'
            with Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))) as drawn:
                atlas.paste(drawn.convert("RGBA"), (column * SIDE, row * SIDE))
    return atlas


if __name__ == "__main__":
    draw_atlas(Path(sys.argv[1])).save(ATLAS, optimize=True)
