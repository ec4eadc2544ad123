"""What a run shows while it goes on: how far it is, its curves, and sheets of the student over time."""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

from PIL import Image

from fewstep.evaluation.report_charts import line_chart
from fewstep.runs.folder import RunFolder
from fewstep.runs.metrics import all_lines, curves, thinned
from fewstep.runs.overview import read_row
from fewstep.runs.places import SHEET, sheets_in
from fewstep.runs.summary import summary_of

_GROUPS = {"Losses": "loss/", "Health": "health/", "Measured": "evaluation/", "Gradient norms": "grad_norm/"}
_MOST_POINTS = 600
_SMALL = 640
"""Pixels of a sheet's width below which its pixels are to be seen."""


def stamp_of(run: Path) -> tuple[int, int]:
    """What changes when the run has written figures."""
    metrics = RunFolder.open(run).metrics
    found = metrics.stat() if metrics.is_file() else None
    return (0, 0) if found is None else (found.st_size, found.st_mtime_ns)


def progress_html(run: Path) -> str:
    """How far the run is, and what it does now."""
    row = read_row(run)
    share = 0.0 if not row.asked else min(1.0, (row.updates or 0) / row.asked)
    far = f"{row.updates or 0:,} of {row.asked:,} updates" if row.asked else "no budget to be read"
    ago = "" if row.age is None or row.state == "done" else f" · last step {row.age} ago"
    problem = "" if row.problem is None else f'<p class="fs-problem">{escape(row.problem)}</p>'
    return (
        f'<div class="fs-run"><header><b>{escape(row.name)}</b><span class="fs-state fs-{row.state}">{row.state}</span>'
        f"<span>{escape(far)}{escape(ago if row.state != 'done' else '')}</span></header>"
        f'<div class="fs-bar" role="progressbar" aria-valuenow="{share * 100:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100"><i style="width:{share * 100:.1f}%"></i></div>{problem}</div>'
    )


def story_html(run: Path) -> str:
    """Recipe, what was changed of it, code and checkpoints; of what does not change while it trains."""
    found = summary_of(run)
    code = found.sessions[-1].get("fewstep", "")
    lines = {
        "recipe": str(found.row.recipe),
        "settings": f"hash {found.config_hash}",
        "changed": ", ".join(found.changes) or (found.not_compared or "nothing of the recipe"),
        "written by": f"fewstep {code}",
        "checkpoints": ", ".join(found.checkpoints[-4:]) or "none yet",
    }
    return _list(lines)


def curves_html(run: Path) -> str:
    """Every figure as a small chart of raw values and their running mean, by what it is about."""
    figures = curves(all_lines(RunFolder.open(run).metrics))
    if not figures:
        return '<p class="fs-note">No step was written yet. This page follows the run by itself.</p>'
    parts = []
    for title, prefix in _GROUPS.items():
        group = {name: points for name, points in figures.items() if name.startswith(prefix)}
        if group:
            charts = "".join(
                line_chart(name.removeprefix(prefix), thinned(curve, _MOST_POINTS)) for name, curve in group.items()
            )
            parts.append(f'<h3>{title}</h3><div class="fs-charts">{charts}</div>')
    return f'<div class="fs-curves">{"".join(parts)}</div>'


def sheets_of(run: Path) -> list[Path]:
    """The run's sample sheets, the oldest first."""
    return sheets_in(RunFolder.open(run).sheets)


def sheet_html(sheet: Path) -> str:
    """One sheet, and what is seen on it."""
    told = SHEET.fullmatch(sheet.name)
    assert told is not None
    with Image.open(sheet) as image:
        pixels = ' class="fs-pixels"' if image.width < _SMALL else ""
    data = base64.b64encode(sheet.read_bytes()).decode()
    update = int(told["update"])
    size = (told["size"] or "").removeprefix("-")
    place = f", {size}" if size else ""
    below = escape(f"after {update:,} updates{place}: the teacher above, the student below")
    return (
        f'<h3>Samples over time</h3><figure class="fs-sheet"><img{pixels} src="data:image/png;base64,{data}" '
        f'alt="Sample sheet {below}"><figcaption>{below}</figcaption></figure>'
    )


def _list(lines: Mapping[str, str]) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines.items())
    return f'<h3>The run</h3><dl class="fs-story">{told}</dl>'
