"""The pictures that the demo shows: the same prompts and seeds of teacher and student, and picture.png of them.

Nothing is picked by hand: every full prompt at seed 0, and every prompt that leaves the colour open at seeds 0 to 6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fewstep.demo.protocol import BATCH, Row
from fewstep.demo.result import TITLES
from fewstep.embedded.digits.prompts import NUM_COLOURS, full_prompts, open_colour_prompts
from fewstep.evaluation.report_pictures import Sheet
from fewstep.sampling.loaded import TextToImage

_Draw = Callable[[Sequence[str], Sequence[int]], UInt8[Tensor, "n 3 h w"]]
"""Draws one picture per prompt and seed, as bytes; a picture depends on its own prompt and seed only."""


def draw_with(model: TextToImage, *, sigmas: Float[Tensor, "k"], guidance_scale: float) -> _Draw:
    """Pictures of ``model`` on the grid ``sigmas`` (without the final 0)."""

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        latents = model.latents(prompts, seeds, sigmas=sigmas, guidance_scale=guidance_scale, batch=BATCH)
        return model.pixels(latents, batch=BATCH)

    return draw


@dataclass(frozen=True)
class Panel:
    """One model's pictures.

    Attributes:
        row: Name of its row of scores.
        steps, calls: Per picture; a call is one of the network.
        full: Rows are digits, columns are colours, seed 0.
        open: Rows are digits, columns are seeds; the prompt leaves the colour open.
    """

    row: str
    steps: int
    calls: int
    full: Sheet
    open: Sheet


def draw_panel(draw: _Draw, *, row: str, steps: int, calls: int) -> Panel:
    """Draw the 140 pictures of one model."""
    full, free = full_prompts(), [prompt for prompt in open_colour_prompts() for _ in range(NUM_COLOURS)]
    seeds = list(range(NUM_COLOURS)) * len(open_colour_prompts())
    return Panel(row, steps, calls, _sheet(draw, full, [0] * len(full)), _sheet(draw, free, seeds))


def _sheet(draw: _Draw, prompts: Sequence[str], seeds: Sequence[int]) -> Sheet:
    return Sheet(draw(prompts, seeds), tuple(prompts), tuple(seeds), NUM_COLOURS)


ZOOM = 2
_GAP, _MARGIN, _HEADER, _BREAK = 36, 40, 92, 14
_PAPER, _INK, _SOFT, _ACCENT = "#ffffff", "#1d1d1f", "#6b6b70", "#c2410c"
FULL_ROWS, _OPEN_ROWS = (0, 6), (6, 9)


def compose(panels: Sequence[Panel], rows: Mapping[str, Row]) -> Image.Image:
    """Put the panels side by side: six digits in every colour over three digits whose colour the prompt leaves open."""
    blocks = [_block(panel) for panel in panels]
    width, height = blocks[0].size
    canvas = Image.new(
        "RGB",
        (2 * _MARGIN + len(blocks) * width + (len(blocks) - 1) * _GAP, _MARGIN + _HEADER + height + _MARGIN),
        _PAPER,
    )
    for position, (panel, block) in enumerate(zip(panels, blocks, strict=True)):
        left = _MARGIN + position * (width + _GAP)
        canvas.paste(block, (left, _MARGIN + _HEADER))
        _label(ImageDraw.Draw(canvas), left, panel, rows[panel.row])
    return canvas


def _block(panel: Panel) -> Image.Image:
    parts = [
        _enlarged(panel.full.rows(*FULL_ROWS).mosaic().numpy()),
        _enlarged(panel.open.rows(*_OPEN_ROWS).mosaic().numpy()),
    ]
    block = Image.new("RGB", (parts[0].width, sum(part.height for part in parts) + _BREAK), _PAPER)
    block.paste(parts[0], (0, 0))
    block.paste(parts[1], (0, parts[0].height + _BREAK))
    return block


def _enlarged(pixels: object) -> Image.Image:
    image = Image.fromarray(pixels)  # type: ignore[arg-type]  # a numpy array, which Pillow types by protocol
    return image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST)


def _label(canvas: ImageDraw.ImageDraw, left: int, panel: Panel, row: Row) -> None:
    title = _ACCENT if panel.row.startswith("student") else _INK
    calls = f"{panel.calls} network calls per picture"
    canvas.text((left, _MARGIN - 6), TITLES[panel.row], fill=title, font=ImageFont.load_default(27))
    canvas.text((left, _MARGIN + 30), calls, fill=_SOFT, font=ImageFont.load_default(19))
    scores = f"FD {row.fd:.2f}    accuracy {row.accuracy:.3f}    recall {row.recall:.2f}"
    canvas.text((left, _MARGIN + 55), scores, fill=_SOFT, font=ImageFont.load_default(19))
