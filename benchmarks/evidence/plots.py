"""Curves as SVG that a page on GitHub shows in light and in dark: no background, and ink that is seen on both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

INK = "#6a7683"
COLOURS = ("#2f81f7", "#cc5f1b", "#2f9348", "#a35be0", "#d84a4a", "#8a7a1e")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 430, 290, 58, 34, 14, 46
_LEGEND = 26
_TICKS = 5


@dataclass(frozen=True)
class Dot:
    """A point of a curve.

    Attributes:
        x, y: Where it is.
        reach: Half of the interval of ``y``, or None.
        label: Written beside it; of a curve at its ends only.
    """

    x: float
    y: float
    reach: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour, joined unless they are only marks."""

    name: str
    dots: Sequence[Dot]
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One system of axes.

    Attributes:
        title, x, y: What is written above and along it.
        series: In the legend's order, equal in all panels.
        ticks: Places on the horizontal axis that are labelled; round ones unless given.
    """

    title: str
    x: str
    y: str
    series: Sequence[Series]
    ticks: Sequence[float] = field(default=())


def svg(panels: Sequence[Panel], *, columns: int, title: str) -> str:
    """Panels side by side in rows, with one legend above them."""
    rows = -(-len(panels) // columns)
    width, height = columns * _WIDTH, _LEGEND + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        *_legend(panels[0].series),
    ]
    for position, panel in enumerate(panels):
        x, y = position % columns * _WIDTH, _LEGEND + position // columns * _HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def colour_of(position: int) -> str:
    return COLOURS[position % len(COLOURS)]


def _legend(series: Sequence[Series]) -> Iterator[str]:
    x = _LEFT
    for position, one in enumerate(series):
        yield _mark(x, 14, position)
        yield f'<text x="{x + 10}" y="18">{escape(one.name)}</text>'
        x += 34 + 7 * len(one.name)


def _panel(panel: Panel) -> Iterator[str]:
    dots = [dot for one in panel.series for dot in one.dots]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield f'<text x="{_LEFT}" y="{_TOP - 12}" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="{INK}"/>'
    yield f'<text x="{(_LEFT + right) / 2:g}" y="{bottom + 36}" text-anchor="middle">{escape(panel.x)}</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text transform="translate(16 {middle:g}) rotate(-90)" text-anchor="middle">{escape(panel.y)}</text>'
    if not dots:
        yield f'<text x="{(_LEFT + right) / 2:g}" y="{middle:g}" text-anchor="middle">not run</text>'
        return
    across = _Axis.over([dot.x for dot in dots], _LEFT, right)
    reaches = [(dot.y - (dot.reach or 0.0), dot.y + (dot.reach or 0.0)) for dot in dots]
    up = _Axis.over([y for pair in reaches for y in pair], bottom, _TOP)
    for x in panel.ticks or across.ticks():
        yield f'<text x="{across(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:.4g}</text>'
    for y in up.ticks():
        yield f'<path d="M{_LEFT} {up(y):.1f}H{right}" stroke="{INK}" stroke-opacity="0.25"/>'
        yield f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.4g}</text>'
    for position, one in enumerate(panel.series):
        yield from _series(one, position, across, up)


def _series(series: Series, position: int, across: "_Axis", up: "_Axis") -> Iterator[str]:
    colour = colour_of(position)
    places = [(across(dot.x), up(dot.y)) for dot in series.dots]
    if series.joined and len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    for dot, (x, y) in zip(series.dots, places, strict=True):
        if dot.reach:
            low, high = up(dot.y - dot.reach), up(dot.y + dot.reach)
            yield f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-opacity="0.6"/>'
        yield _mark(x, y, position)
        if dot.label and (not series.joined or dot in (series.dots[0], series.dots[-1])):
            side, anchor = (-6, "end") if x > (across.start + across.end) / 2 else (6, "start")
            place = f'x="{x + side:.1f}" y="{y - 6:.1f}" text-anchor="{anchor}"'
            yield f'<text {place} font-size="10">{escape(dot.label)}</text>'


def _mark(x: float, y: float, position: int) -> str:
    """Another shape for each series, for eyes that do not tell colours apart."""
    shapes = ("M-4 -4H4V4H-4Z", "M0 -5L5 0L0 5L-5 0Z", "M0 -5L5 4H-5Z", "M0 5L5 -4H-5Z", "M-5 -1.5H5V1.5H-5Z")
    place = f'transform="translate({x:.1f} {y:.1f})" fill="{colour_of(position)}"'
    return f'<circle r="4" {place}/>' if position == 0 else f'<path d="{shapes[(position - 1) % 5]}" {place}/>'


@dataclass(frozen=True)
class _Axis:
    """Values to places, linear; the values have room at both ends."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = min(values), max(values)
        room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside: multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** int(f"{rough:e}".partition("e")[2])
        step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
        first = int(self.low / step) + (self.low > 0)
        return [n * step for n in range(first, int(self.high / step) + 1)]
