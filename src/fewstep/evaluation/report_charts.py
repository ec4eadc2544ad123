"""The charts of report.html as inline SVG: bars with their intervals, and the losses of a training as lines."""

from collections.abc import Sequence
from html import escape

from fewstep.evaluation.results import arrow, format_value
from fewstep.evaluation.table import Cell, Table

Losses = Sequence[tuple[int, float]]
"""One loss, as (step, value) in order."""

_BARS_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH = 270.0, 26.0, 110.0
_WIDTH, _HEIGHT, _MARGIN = 320.0, 120.0, 6.0


def bar_chart(table: Table, column: tuple[str, str]) -> str:
    """Bars from zero, or from the lowest value where some are negative, with their intervals."""
    cells = [cell for subject in table.subjects if (cell := table.cell(subject.name, column)) is not None]
    ends = [end for cell in cells for end in _ends(cell)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0
    room = _BARS_WIDTH - _LABEL_WIDTH - 60

    def across(value: float) -> float:
        return _LABEL_WIDTH + room * (value - low) / span

    bars = []
    for position, cell in enumerate(cells):
        y = position * _BAR_HEIGHT + 6
        left, right = sorted((across(0.0), across(cell.value)))
        start, end = _ends(cell)
        bars.append(
            f'<text x="0" y="{y + 11:.0f}">{escape(cell.model[:17])}</text>'
            f'<rect class="{cell.role or ""}" x="{left:.1f}" y="{y:.0f}" '
            f'width="{max(right - left, 1):.1f}" height="14" rx="2"/>'
            f'<line x1="{across(start):.1f}" x2="{across(end):.1f}" y1="{y + 7:.0f}" y2="{y + 7:.0f}"/>'
            f'<text class="value" x="{across(max(end, cell.value)) + 6:.1f}" y="{y + 11:.0f}">'
            f"{format_value(cell.value, cell)}</text>"
        )
    label = ", ".join(f"{cell.model} {format_value(cell.value, cell)}" for cell in cells)
    return (
        f'<figure class="chart"><figcaption><b>{escape(column[1])}</b> {arrow(table, column)}</figcaption>'
        f'<svg viewBox="0 0 {_BARS_WIDTH:g} {len(cells) * _BAR_HEIGHT + 6:g}" role="img" '
        f'aria-label="{escape(column[1])}: {escape(label)}">{"".join(bars)}</svg></figure>'
    )


def _ends(cell: Cell) -> tuple[float, float]:
    return (cell.value, cell.value) if cell.interval is None else (cell.interval.low, cell.interval.high)


def line_chart(name: str, losses: Losses) -> str:
    """One curve as an SVG figure with its first and last running mean; single steps beyond the frame are cut."""
    steps, values = [step for step, _ in losses], [value for _, value in losses]
    smooth = _running_mean(values, window=max(1, len(values) // 12))
    low, high = min(smooth), max(smooth)
    # room for the scatter of single steps, without letting one of them flatten the curve
    low, high = low - 0.4 * (high - low), high + 0.4 * (high - low) or 1.0

    def path(series: Sequence[float]) -> str:
        span_x, span_y = max(steps[-1] - steps[0], 1), (high - low) or 1.0
        spots = []
        for step, value in zip(steps, series, strict=True):
            x = _MARGIN + (_WIDTH - 2 * _MARGIN) * (step - steps[0]) / span_x
            y = _MARGIN + (_HEIGHT - 2 * _MARGIN) * (high - min(max(value, low), high)) / span_y
            spots.append(f"{x:.1f},{y:.1f}")
        return " ".join(spots)

    label = f"{name}: running mean {smooth[0]:.4f} at first, {smooth[-1]:.4f} at the end"
    return (
        f'<figure class="chart"><figcaption><b>{escape(name)}</b><span>{smooth[0]:.3f} &rarr; {smooth[-1]:.3f}</span>'
        f'</figcaption><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(label)}">'
        f'<polyline class="raw" points="{path(values)}"/><polyline class="mean" points="{path(smooth)}"/></svg>'
        "</figure>"
    )


def _running_mean(values: Sequence[float], *, window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]
