"""report.html of an evaluation: one file that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.report_pictures import best_and_worst, diversity_strip, side_by_side, step_ladder
from fewstep.evaluation.report_style import CSS
from fewstep.evaluation.results import arrow, format_value
from fewstep.evaluation.scoring import Scored
from fewstep.evaluation.table import Cell, Table
from fewstep.files import explain_write_errors, whole_file
from fewstep.scores.metric import MetricCard

CHART_WIDTH, BAR_HEIGHT, LABEL_WIDTH = 340.0, 26.0, 110.0
_METHODS = (
    "Intervals are of level 95 %, over prompts: drawn with repetitions for scores of single pictures (bootstrap), left "
    "out in groups for figures of a whole set (jackknife). The difference to the teacher is paired: both models drew "
    "each prompt from the same noise."
)


def write_report(
    folder: EvaluationFolder, task: Task, table: Table, scored: Sequence[Scored], summary: Mapping[str, Any]
) -> None:
    """Write report.html into the folder."""
    path = folder.path / "report.html"
    text = _render(folder, task, table, scored, summary)
    with explain_write_errors(path), whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _render(
    folder: EvaluationFolder, task: Task, table: Table, scored: Sequence[Scored], summary: Mapping[str, Any]
) -> str:
    """The page."""
    records = table.records
    names = ", ".join(record.entry.name for record in records)
    sections = [
        _opening(task, table, summary),
        _scores(table),
        _charts(table),
        side_by_side(folder, task, records),
        best_and_worst(folder, task, scored),
        diversity_strip(folder, task, records),
        step_ladder(folder, task, records),
        _cards(scored),
        _conditions(summary),
    ]
    footer = f"<footer>Written by fewstep evaluate. Protocol {summary['protocol']}.</footer>"
    return page(f"fewstep: {names}", [*sections, footer])


def page(title: str, sections: Sequence[str], *, css: str = "") -> str:
    """A whole HTML page of such sections; ``css`` is what it has beyond the looks that all reports share."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{css}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _opening(task: Task, table: Table, summary: Mapping[str, Any]) -> str:
    students = [record for record in table.records if record.entry.role == "student"]
    names = ", ".join(escape(record.entry.name) for record in students)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in table.warnings)
    return (
        f"<h1>{names} against the teacher</h1>"
        f'<p class="lead">{len(task.prompts.items)} prompts ({escape(task.prompts.name)}), {len(task.seeds)} '
        f"{'picture' if len(task.seeds) == 1 else 'pictures'} each, protocol {summary['protocol']}.</p>{warnings}"
    )


def _scores(table: Table) -> str:
    columns = table.columns()
    heads = "".join(f"<th>{escape(figure)} {arrow(table, (metric, figure))}</th>" for metric, figure in columns)
    rows = "".join(_row(table, record, columns) for record in table.records)
    return (
        f'<h2>Scores</h2><p class="note">{_METHODS}</p><div class="scroll"><table><thead><tr><th>model</th><th>steps'
        f"</th><th>calls</th><th>guidance</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(table: Table, record: ModelRecord, columns: Sequence[tuple[str, str]]) -> str:
    sampling = record.entry.sampling
    guidance = "&ndash;" if sampling.guidance_scale is None else f"{sampling.guidance_scale:g}"
    calls = "&ndash;" if record.calls_per_picture is None else f"{record.calls_per_picture:g}"
    label = escape(record.entry.name) + ("<small>teacher</small>" if record.entry.role == "teacher" else "")
    cells = "".join(_cell(table.cell(record.entry.name, column)) for column in columns)
    return (
        f'<tr class="{record.entry.role}"><td>{label}</td><td>{sampling.steps}</td><td>{calls}</td><td>{guidance}</td>'
        f"{cells}</tr>"
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td>&ndash;</td>"
    lines = format_value(cell.value, cell)
    if cell.interval is not None:
        lines += f"<small>{format_value(cell.interval.low, cell)} to {format_value(cell.interval.high, cell)}</small>"
    if cell.difference is not None:
        css = f' class="{cell.verdict}"' if cell.verdict in ("better", "worse") else ""
        paired = cell.difference_interval
        reach = "" if paired is None else f" [{format_value(paired.low, cell)}, {format_value(paired.high, cell)}]"
        sign = "+" if cell.difference > 0 else ""
        lines += f"<small{css}>{sign}{format_value(cell.difference, cell)}{reach}</small>"
    return f"<td>{lines}</td>"


def _charts(table: Table) -> str:
    charts = "".join(_chart(table, column) for column in table.columns())
    return f'<h2>At a glance</h2><div class="charts">{charts}</div>'


def _chart(table: Table, column: tuple[str, str]) -> str:
    """Bars from zero, or from the lowest value where some are negative, with their intervals."""
    cells = [cell for record in table.records if (cell := table.cell(record.entry.name, column)) is not None]
    ends = [end for cell in cells for end in _ends(cell)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0
    room = CHART_WIDTH - LABEL_WIDTH - 60

    def across(value: float) -> float:
        return LABEL_WIDTH + room * (value - low) / span

    bars = []
    for position, cell in enumerate(cells):
        y = position * BAR_HEIGHT + 6
        left, right = sorted((across(0.0), across(cell.value)))
        start, end = _ends(cell)
        bars.append(
            f'<text x="0" y="{y + 11:.0f}">{escape(cell.model[:17])}</text>'
            f'<rect class="{cell.role}" x="{left:.1f}" y="{y:.0f}" '
            f'width="{max(right - left, 1):.1f}" height="14" rx="2"/>'
            f'<line x1="{across(start):.1f}" x2="{across(end):.1f}" y1="{y + 7:.0f}" y2="{y + 7:.0f}"/>'
            f'<text class="value" x="{across(max(end, cell.value)) + 6:.1f}" y="{y + 11:.0f}">'
            f"{format_value(cell.value, cell)}</text>"
        )
    label = ", ".join(f"{cell.model} {format_value(cell.value, cell)}" for cell in cells)
    return (
        f'<figure class="chart"><figcaption><b>{escape(column[1])}</b> {arrow(table, column)}</figcaption>'
        f'<svg viewBox="0 0 {CHART_WIDTH:g} {len(cells) * BAR_HEIGHT + 6:g}" role="img" '
        f'aria-label="{escape(column[1])}: {escape(label)}">{"".join(bars)}</svg></figure>'
    )


def _ends(cell: Cell) -> tuple[float, float]:
    return (cell.value, cell.value) if cell.interval is None else (cell.interval.low, cell.interval.high)


def _cards(scored: Sequence[Scored]) -> str:
    cards = {one.metric.card.name: one.metric.card for one in scored}
    return f"<h2>What the numbers mean</h2>{''.join(_card(card) for card in cards.values())}"


def _card(card: MetricCard) -> str:
    lines = {
        "formula": card.formula,
        "scale": card.scale,
        "preprocessing": card.preprocessing,
        "comparable": card.comparable,
        "licence": card.licence,
    }
    terms = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in lines.items())
    return f"<h3>{escape(card.name)}: {escape(card.title)}</h3><dl>{terms}</dl>"


def _conditions(summary: Mapping[str, Any]) -> str:
    parts = []
    for model in summary["models"]:
        facts = {"model": model["model"], "content": model["fingerprint"], **model["sampling"]}
        terms = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
        parts.append(f"<details><summary>{escape(model['name'])}</summary><dl>{terms}</dl></details>")
    for name, known in summary["protocols"].items():
        metric = known["metric"]["name"]
        terms = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in known.items())
        parts.append(f"<details><summary>{escape(metric)}, protocol {name}</summary><dl>{terms}</dl></details>")
    return f"<h2>How it was measured</h2>{''.join(parts)}"
