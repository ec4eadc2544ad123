"""picture.png: the comparison in one picture, as the README shows it."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from fewstep.demo.protocol import Row
from fewstep.demo.result import TITLES
from fewstep.demo.showcase import Panel

ZOOM = 2
GAP, MARGIN, HEADER, BREAK = 36, 40, 92, 14
PAPER, INK, SOFT, ACCENT = "#ffffff", "#1d1d1f", "#6b6b70", "#c2410c"
FULL_ROWS, OPEN_ROWS = (0, 6), (6, 9)


def compose(panels: Sequence[Panel], rows: Mapping[str, Row]) -> Image.Image:
    """Put the panels side by side: six digits in every colour over three digits whose colour the prompt leaves open."""
    blocks = [_block(panel) for panel in panels]
    width, height = blocks[0].size
    canvas = Image.new(
        "RGB",
        (2 * MARGIN + len(blocks) * width + (len(blocks) - 1) * GAP, MARGIN + HEADER + height + MARGIN),
        PAPER,
    )
    for position, (panel, block) in enumerate(zip(panels, blocks, strict=True)):
        left = MARGIN + position * (width + GAP)
        canvas.paste(block, (left, MARGIN + HEADER))
        _label(ImageDraw.Draw(canvas), left, panel, rows[panel.row])
    return canvas


def _block(panel: Panel) -> Image.Image:
    parts = [
        _enlarged(panel.full.rows(*FULL_ROWS).mosaic().numpy()),
        _enlarged(panel.open.rows(*OPEN_ROWS).mosaic().numpy()),
    ]
    block = Image.new("RGB", (parts[0].width, sum(part.height for part in parts) + BREAK), PAPER)
    block.paste(parts[0], (0, 0))
    block.paste(parts[1], (0, parts[0].height + BREAK))
    return block


def _enlarged(pixels: object) -> Image.Image:
    image = Image.fromarray(pixels)  # type: ignore[arg-type]  # a numpy array, which Pillow types by protocol
    return image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST)


def _label(canvas: ImageDraw.ImageDraw, left: int, panel: Panel, row: Row) -> None:
    title = ACCENT if panel.row.startswith("student") else INK
    calls = f"{panel.calls} network calls per picture"
    canvas.text((left, MARGIN - 6), TITLES[panel.row], fill=title, font=ImageFont.load_default(27))
    canvas.text((left, MARGIN + 30), calls, fill=SOFT, font=ImageFont.load_default(19))
    scores = f"FD {row.fd:.2f}    accuracy {row.accuracy:.3f}    recall {row.recall:.2f}"
    canvas.text((left, MARGIN + 55), scores, fill=SOFT, font=ImageFont.load_default(19))
