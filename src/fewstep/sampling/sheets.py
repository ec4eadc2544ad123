"""Many pictures as one: a sheet of all of them, and two models side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from fewstep.errors import ConfigError
from fewstep.sampling.pictures import Drawn

_GAP, _MARGIN, _LINE = 8, 16, 24
_CAPTION, _TITLE = 15, 20
_SMALLEST = 256
"""Pixels of a picture's width beside another model's: below, the words of its column would not fit."""
_MOST = 2**26
"""Pixels of a sheet; Pillow takes files of 90 million and more for an attack."""
_PAPER, _INK, _SOFT = "#ffffff", "#1d1d1f", "#6b6b70"


@dataclass(frozen=True)
class Column:
    """What one model drew.

    Attributes:
        told: Lines below its name, such as steps and seconds.
    """

    name: str
    told: Sequence[str]
    pictures: Sequence[Drawn]


def _still(drawn: Drawn) -> Image.Image:
    """A picture as it is; of a clip the first, the middle and the last frame."""
    if not isinstance(drawn, list):
        return drawn
    frames = [drawn[0], drawn[len(drawn) // 2], drawn[-1]]
    return _row(frames, gap=0)


def _row(pictures: Sequence[Image.Image], *, gap: int) -> Image.Image:
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), _PAPER)
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def require_fits(count: int, *, height: int, width: int, frames: int | None, compared: bool) -> None:
    """Refuse a sheet that many programs would not open, before anything is drawn.

    Args:
        count: Of its pictures, or of the rows of a comparison.
        height, width: Of each picture, in pixels.
        frames: Of a clip, three of which stand on a sheet; None of pictures.

    Raises:
        ConfigError: It is too large.
    """
    wide = width if frames is None else 3 * width
    across = 2 if compared else _columns(count)
    times = _times(wide) if compared else 1
    down = count if compared else math.ceil(count / across)
    sides = down * times * height, across * times * wide
    if sides[0] * sides[1] > _MOST:
        raise ConfigError(
            f"A sheet of {count} {'pairs' if compared else 'pictures'} of {height} x {width} would have {sides[0]} x "
            f"{sides[1]} pixels, more than {_MOST}; give fewer prompts or a smaller size."
        )


def grid_sheet(pictures: Sequence[Drawn]) -> Image.Image:
    """All pictures in rows from left to right, in a square or nearly."""
    stills = [_still(picture) for picture in pictures]
    across = _columns(len(stills))
    width, height = stills[0].size
    rows = math.ceil(len(stills) / across)
    sheet = Image.new("RGB", (across * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), _PAPER)
    for position, picture in enumerate(stills):
        sheet.paste(picture, (position % across * (width + _GAP), position // across * (height + _GAP)))
    return sheet


def comparison_sheet(columns: Sequence[Column], prompts: Sequence[str]) -> Image.Image:
    """One column for each model under its name, one row for each prompt above its pictures."""
    stills = [[_enlarged(_still(picture)) for picture in column.pictures] for column in columns]
    widths = [column[0].width for column in stills]
    heights = [max(column[row].height for column in stills) for row in range(len(prompts))]
    header = _TITLE + _LINE * max(len(column.told) for column in columns) + _GAP
    width = 2 * _MARGIN + sum(widths) + _GAP * (len(columns) - 1)
    sheet = Image.new("RGB", (width, 2 * _MARGIN + header + sum(heights) + len(prompts) * (_LINE + _GAP)), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    lefts = [_MARGIN + sum(widths[:number]) + _GAP * number for number in range(len(columns))]
    for left, wide, column in zip(lefts, widths, columns, strict=True):
        _write(canvas, (left, _MARGIN), column.name, wide, size=_TITLE, ink=_INK)
        for number, line in enumerate(column.told):
            _write(canvas, (left, _MARGIN + _TITLE + 4 + _LINE * number), line, wide, size=_CAPTION, ink=_SOFT)
    top = _MARGIN + header
    for row, prompt in enumerate(prompts):
        _write(canvas, (_MARGIN, top), prompt, width - 2 * _MARGIN, size=_CAPTION, ink=_INK)
        for left, column_stills in zip(lefts, stills, strict=True):
            sheet.paste(column_stills[row], (left, top + _LINE))
        top += heights[row] + _LINE + _GAP
    return sheet


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture in whole multiples of its pixels, each of which stays one colour."""
    times = _times(picture.width)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _times(width: int) -> int:
    return math.ceil(_SMALLEST / width)


def _write(canvas: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, *, size: int, ink: str) -> None:
    """One line, cut to a width. Pillow's own font has no glyphs of Asian scripts."""
    font = ImageFont.load_default(size)
    line = " ".join(text.split())[: width // 2]  # no character is narrower than two pixels
    if canvas.textlength(line, font=font) > width:
        while line and canvas.textlength(f"{line}...", font=font) > width:
            line = line[:-1]
        line = f"{line}..."
    canvas.text(place, line, fill=ink, font=font)
