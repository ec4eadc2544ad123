"""Small line charts as inline SVG: every step faint, the running mean strong."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError, parse_json

WIDTH, HEIGHT, MARGIN = 320.0, 120.0, 6.0


def read_curves(metrics: Path) -> dict[str, list[tuple[int, float]]]:
    """The losses of a run's metrics.jsonl, by name, as (step, value) in order."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for text in metrics.read_text(encoding="utf-8").splitlines():
        try:
            line = parse_json(text, dict[str, Any])
        except UnreadableError as error:
            raise CheckpointError(
                f"{metrics} cannot be drawn: {error}. Delete its folder and run the demo again."
            ) from error
        for name, value in line.items():
            if name.startswith("loss/"):
                curves.setdefault(name.removeprefix("loss/"), []).append((int(line["step"]), float(value)))
    return curves


def running_mean(values: Sequence[float], *, window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]


def line_chart(name: str, points: Sequence[tuple[int, float]]) -> str:
    """One curve as an SVG figure with its first and last running mean; single steps beyond the frame are cut."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    smooth = running_mean(values, window=max(1, len(values) // 12))
    low, high = min(smooth), max(smooth)
    # room for the scatter of single steps, without letting one of them flatten the curve
    low, high = low - 0.4 * (high - low), high + 0.4 * (high - low) or 1.0

    def path(series: Sequence[float]) -> str:
        span_x, span_y = max(steps[-1] - steps[0], 1), (high - low) or 1.0
        spots = []
        for step, value in zip(steps, series, strict=True):
            x = MARGIN + (WIDTH - 2 * MARGIN) * (step - steps[0]) / span_x
            y = MARGIN + (HEIGHT - 2 * MARGIN) * (high - min(max(value, low), high)) / span_y
            spots.append(f"{x:.1f},{y:.1f}")
        return " ".join(spots)

    label = f"{name}: running mean {smooth[0]:.4f} at first, {smooth[-1]:.4f} at the end"
    return (
        f'<figure class="chart"><figcaption><b>{escape(name)}</b><span>{smooth[0]:.3f} &rarr; {smooth[-1]:.3f}</span>'
        f'</figcaption><svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}">'
        f'<polyline class="raw" points="{path(values)}"/><polyline class="mean" points="{path(smooth)}"/></svg>'
        "</figure>"
    )
