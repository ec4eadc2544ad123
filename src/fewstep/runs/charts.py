"""Figures over updates, a chart for each and a line for each run, drawn once: as a PNG, or as SVG inside a page."""

from collections.abc import Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from fewstep.config.identity import shown_setting
from fewstep.errors import ConfigError, shown
from fewstep.files import explain_write_errors, whole_file, write_text
from fewstep.runs.comparison import WINDOW, Curve, Figure, RunComparison
from fewstep.runs.metrics import thinned

# Okabe and Ito's, which people who see few colours can tell apart
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#888888")
_INK, _SOFT, _PAPER = "#1d1d1f", "#8a8a90", "#ffffff"
_WIDTH, _HEIGHT, _COLUMNS = 520, 300, 2
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 30
_LEGEND = 22
_MOST_POINTS = 500
_MOST_CHARTS = 100
"""Of a PNG: 62 million pixels."""
_MOST_VALUE = 1e300
"""The difference of two such values is still a number."""
_LETTERS = 13
_FINE = 2
"""Pixels of a PNG to a unit of these."""


class _Canvas(Protocol):
    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None: ...

    def text(self, x: float, y: float, text: str, colour: str, *, right: bool = False) -> None: ...


def require_drawable(output: Path) -> None:
    """Raise ConfigError when a file's ending is none that charts are drawn as."""
    if output.suffix.lower() not in (".png", ".html"):
        raise ConfigError(f"--output is {shown(str(output), 400)}; it must end in .png or .html.")


def write_comparison(compared: RunComparison, output: Path) -> None:
    """Write the curves as a PNG, or a page that needs no network: tables and curves.

    Raises:
        ConfigError: No run has a figure yet, they have too many for a PNG, or the file cannot be written.
    """
    require_drawable(output)
    if not compared.curves:
        raise ConfigError("No loss was written yet, so there is nothing to draw; leave --output out.")
    with explain_write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() == ".html":
        write_text(output, _page(compared))
        return
    if len(compared.curves) > _MOST_CHARTS:
        raise ConfigError(
            f"The runs have {len(compared.curves)} figures, and a PNG shows {_MOST_CHARTS} at most; give --output a "
            "name that ends in .html."
        )
    picture = _Picture(*_size(compared))
    _draw(picture, compared)
    with explain_write_errors(output), whole_file(output) as unfinished:
        picture.image.save(unfinished, format="PNG", optimize=True)


def _size(compared: RunComparison) -> tuple[int, int]:
    columns = min(_COLUMNS, len(compared.curves))
    rows = -(-len(compared.curves) // columns)
    return columns * _WIDTH, len(compared.names) * _LEGEND + 12 + rows * _HEIGHT


def _draw(canvas: _Canvas, compared: RunComparison) -> None:
    for number, (name, colour) in enumerate(zip(compared.names, cycle(_COLOURS), strict=False)):
        y = 10 + number * _LEGEND
        canvas.line([(_LEFT - 40, y + 8), (_LEFT - 10, y + 8)], colour, 3)
        canvas.text(_LEFT, y, shown(name, 110, quoted=False), _INK)
    for number, (name, curves) in enumerate(compared.curves.items()):
        row, column = divmod(number, _COLUMNS)
        top = len(compared.names) * _LEGEND + 12 + row * _HEIGHT
        _draw_chart(canvas, name, curves, column * _WIDTH, top)


def _draw_chart(canvas: _Canvas, name: str, curves: Sequence[Curve], left: float, top: float) -> None:
    """A frame with its ends in numbers, and the lines; of updates it begins at 0."""
    curves = [[(update, min(max(value, -_MOST_VALUE), _MOST_VALUE)) for update, value in curve] for curve in curves]
    values = [value for curve in curves for _, value in curve]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    longest = max(update for curve in curves for update, _ in curve)
    x0, x1, y0, y1 = left + _LEFT, left + _WIDTH - _RIGHT, top + _TOP, top + _HEIGHT - _BOTTOM

    def place(update: float, value: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * update / longest, y1 - (y1 - y0) * (value - low) / (high - low)

    canvas.line([(x0, y0), (x0, y1), (x1, y1)], _SOFT, 1)
    canvas.text(x0, top + 8, shown(name, 60, quoted=False), _INK)
    for share in (0.0, 0.5, 1.0):
        value, update = low + share * (high - low), share * longest
        canvas.text(x0 - 6, place(0, value)[1] - 8, f"{value:.3g}", _SOFT, right=True)
        canvas.text(place(update, low)[0], y1 + 6, f"{update:.4g}", _SOFT, right=share > 0)
    for curve, colour in zip(curves, cycle(_COLOURS), strict=False):
        if curve:
            canvas.line([place(*point) for point in thinned(curve, _MOST_POINTS)], colour, 2)


class _Picture:
    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(_LETTERS * _FINE)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        fine = [(x * _FINE, y * _FINE) for x, y in points]
        if len(fine) == 1:  # a run of one update is a spot
            ((x, y),) = fine
            self._draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        else:
            self._draw.line(fine, fill=colour, width=round(width * _FINE), joint="curve")

    def text(self, x: float, y: float, text: str, colour: str, *, right: bool = False) -> None:
        self._draw.text((x * _FINE, y * _FINE), text, fill=colour, font=self._font, anchor="ra" if right else "la")


class _Svg:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        if len(points) == 1:
            ((x, y),) = points
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>')
            return
        spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{spots}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>')

    def text(self, x: float, y: float, text: str, colour: str, *, right: bool = False) -> None:
        anchor = ' text-anchor="end"' if right else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y + _LETTERS:.1f}" fill="{colour}" font-size="{_LETTERS}"{anchor}>'
            f"{escape(text)}</text>"
        )


def _page(compared: RunComparison) -> str:
    svg = _Svg()
    _draw(svg, compared)
    width, height = _size(compared)
    settings = [[path, *map(shown_setting, values)] for path, values in compared.settings.items()]
    figures = [[name, *map(told_figure, found)] for name, found in compared.figures.items()]
    differing = f"<h2>Settings that differ</h2>{_table(compared.names, settings)}" if len(compared.names) > 1 else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>fewstep: {escape(', '.join(compared.names))}</title><style>{_CSS}</style></head><body>"
        f"<h1>{escape(', '.join(compared.names))}</h1>{differing}"
        f"<h2>Figures</h2>{_table(compared.names, figures)}"
        f"<h2>Over student updates</h2><p>Losses are means of {WINDOW} lines of metrics.jsonl.</p>"
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="Figures over student updates">'
        f"{''.join(svg.parts)}</svg></body></html>\n"
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def told_figure(figure: Figure | None) -> str:
    """The last value, and the best one with its update."""
    if figure is None:
        return "-"
    best = "" if figure.best is None else f", best {figure.best:.4g} at update {figure.update:g}"
    return f"{figure.last:.4g}{best}"


_CSS = (
    "body { max-width: 1100px; margin: 40px auto; padding: 0 20px; background: #fff; color: #1d1d1f; "
    "font: 15px/1.5 system-ui, sans-serif; } table { border-collapse: collapse; font-size: 14px; } "
    "th, td { padding: 6px 14px 6px 0; text-align: left; border-top: 1px solid #e3e1dc; overflow-wrap: anywhere; } "
    "td:first-child { white-space: nowrap; } "
    "thead th { border: 0; font-weight: 600; } p { color: #6b6b70; } svg { max-width: 100%; height: auto; }"
)
