"""report.html: one file that needs no network, quiet type and pictures on black, both colour schemes, no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fewstep.evaluation.folder import EvaluationFolder, Task
from fewstep.evaluation.intervals import METHODS, Interval
from fewstep.evaluation.pairs import Pair
from fewstep.evaluation.report_charts import Losses, bar_chart, line_chart
from fewstep.evaluation.report_pictures import best_and_worst, diversity_strip, side_by_side, step_ladder
from fewstep.evaluation.results import arrow, format_value
from fewstep.evaluation.scoring import Scored
from fewstep.evaluation.table import Cell, Subject, Table
from fewstep.files import write_text
from fewstep.scores.metric import MetricCard


@dataclass(frozen=True)
class Report:
    """What a page shows, from top to bottom; what is empty is left out.

    Attributes:
        title: Of the window.
        headline: What it opens with.
        lead: A paragraph under it.
        all_prompts: The name of a page beside this one that shows every prompt, if there is one.
        showcase: Sections of pictures before the figures, as HTML.
        table: The figures; one without an interval is shown without.
        methods: How they came about.
        words: What the figures mean, in a sentence each.
        pictures: Sections of pictures after them.
        losses: Of the training, by name.
        cards: Of the metrics.
        conditions: Facts about each model and metric, by heading.
        commands: What to do next: a remark and a command each.
        footer: Lines.
    """

    title: str
    headline: str
    lead: str
    table: Table
    methods: str
    all_prompts: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    showcase: Sequence[str] = ()
    pictures: Sequence[str] = ()
    losses: Mapping[str, Losses] = field(default_factory=dict)
    cards: Sequence[MetricCard] = ()
    conditions: Sequence[tuple[str, Mapping[str, Any]]] = ()
    commands: Sequence[tuple[str, str]] = ()
    footer: Sequence[str] = ()

    def html(self) -> str:
        """The page."""
        sections = [
            _opening(self),
            *self.showcase,
            _scores(self),
            _pairs(self.table),
            _charts(self.table),
            *self.pictures,
            _training(self.losses),
            _cards(self.cards),
            _conditions(self.conditions),
            _commands(self.commands),
            f"<footer>{'<br>'.join(map(escape, self.footer))}</footer>",
        ]
        return page(self.title, sections)

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())


def page(title: str, sections: Sequence[str]) -> str:
    """A whole page in this file's type and colours, of sections that are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def report_of(
    folder: EvaluationFolder,
    task: Task,
    table: Table,
    scored: Sequence[Scored],
    summary: Mapping[str, Any],
    *,
    all_prompts: str | None = None,
) -> Report:
    """The report of an evaluation; ``summary`` is what scores.json holds, ``all_prompts`` a page beside it."""
    records = tuple({one.record.entry.name: one.record for one in scored}.values())
    compared = ", ".join(subject.name for subject in table.subjects if subject.role != "teacher")
    has_teacher = any(subject.role == "teacher" for subject in table.subjects)
    models = [
        (model["name"], {"model": model["model"], "content": model["fingerprint"], **model["sampling"]})
        for model in summary["models"]
    ]
    metrics = [(f"{known['metric']['name']}, protocol {id}", known) for id, known in summary["protocols"].items()]
    each = ("clip" if table.about_clips else "picture") + ("" if len(task.seeds) == 1 else "s")
    return Report(
        title=f"fewstep: {', '.join(subject.name for subject in table.subjects)}",
        headline=f"{compared} against the teacher" if has_teacher else compared,
        lead=f"{len(task.prompts.items)} prompts ({task.prompts.name}), {len(task.seeds)} {each} each, "
        f"protocol {summary['protocol']}. {table.about_clips}".strip(),
        table=table,
        methods=METHODS,
        all_prompts=all_prompts,
        pictures=(
            side_by_side(folder, task, records),
            best_and_worst(folder, task, scored),
            diversity_strip(folder, task, records),
            step_ladder(folder, task, records),
        ),
        cards=tuple({one.metric.card.name: one.metric.card for one in scored}.values()),
        conditions=(*models, *metrics),
        footer=(f"Written by fewstep evaluate. Protocol {summary['protocol']}.",),
    )


def _opening(report: Report) -> str:
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in report.table.warnings)
    link = "" if report.all_prompts is None else f' <a href="{escape(report.all_prompts)}">Every prompt</a>'
    return f'<h1>{escape(report.headline)}</h1><p class="lead">{escape(report.lead)}{link}</p>{warnings}'


def _scores(report: Report) -> str:
    table = report.table
    columns = table.columns()
    heads = "".join(f"<th>{escape(figure)} {arrow(table, (metric, figure))}</th>" for metric, figure in columns)
    rows = "".join(_row(table, subject, columns) for subject in table.subjects)
    return (
        f'<h2>Scores</h2><p class="note">{escape(report.methods)}</p><div class="scroll"><table><thead><tr>'
        f"<th>model</th><th>steps</th><th>calls</th><th>guidance</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{_terms(report.words)}"
    )


def _row(table: Table, subject: Subject, columns: Sequence[tuple[str, str]]) -> str:
    facts = (subject.steps, subject.calls, subject.guidance)
    told = "".join(f"<td>{'&ndash;' if fact is None else f'{fact:g}'}</td>" for fact in facts)
    label = escape(subject.name) + ("<small>teacher</small>" if subject.role == "teacher" else "")
    cells = "".join(_cell(table.cell(subject.name, column)) for column in columns)
    return f'<tr class="{subject.role or ""}"><td>{label}</td>{told}{cells}</tr>'


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td>&ndash;</td>"
    lines = format_value(cell.value, cell)
    if cell.interval is not None:
        lines += f"<small>{format_value(cell.interval.low, cell)} to {format_value(cell.interval.high, cell)}</small>"
    if cell.difference is not None:
        lines += _difference(cell.difference, cell.difference_interval, cell.verdict, cell)
    return f"<td>{lines}</td>"


def _pairs(table: Table) -> str:
    """Every two models: on how many prompts the first wins, and by how much they differ."""
    if not table.pairs:
        return ""
    columns = table.columns()
    heads = "".join(f"<th>{escape(figure)} {arrow(table, (metric, figure))}</th>" for metric, figure in columns)
    found = {(pair.model, pair.other, pair.metric, pair.figure): pair for pair in table.pairs}
    rows = []
    for model, other in dict.fromkeys((pair.model, pair.other) for pair in table.pairs):
        cells = "".join(_pair_cell(table, found.get((model, other, *column))) for column in columns)
        rows.append(f"<tr><td>{escape(model)}<small>against {escape(other)}</small></td>{cells}</tr>")
    return (
        '<h2>Against each other</h2><p class="note">The share of prompts that the first wins, where a metric scores '
        "single pictures (a tie is half a win), and how much its figure is above the other&rsquo;s, each with its "
        f'interval.</p><div class="scroll"><table><thead><tr><th>models</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _pair_cell(table: Table, pair: Pair | None) -> str:
    cell = None if pair is None else table.cell(pair.model, (pair.metric, pair.figure))
    if pair is None or cell is None:
        return "<td>&ndash;</td>"
    lines = "" if pair.win_rate is None else f"{pair.win_rate:.0%}"
    if pair.win_interval is not None:
        lines += f"<small>{pair.win_interval.low:.0%} to {pair.win_interval.high:.0%}</small>"
    return f"<td>{lines}{_difference(pair.difference, pair.interval, pair.verdict, cell)}</td>"


def _difference(value: float, interval: Interval | None, verdict: str | None, cell: Cell) -> str:
    css = f' class="{verdict}"' if verdict in ("better", "worse") else ""
    reach = "" if interval is None else f" [{format_value(interval.low, cell)}, {format_value(interval.high, cell)}]"
    return f"<small{css}>{'+' if value > 0 else ''}{format_value(value, cell)}{reach}</small>"


def _charts(table: Table) -> str:
    charts = "".join(bar_chart(table, column) for column in table.columns())
    return f'<h2>At a glance</h2><div class="charts">{charts}</div>'


def _training(losses: Mapping[str, Losses]) -> str:
    if not losses:
        return ""
    charts = "".join(line_chart(name, points) for name, points in losses.items())
    return (
        "<h2>Training</h2>"
        '<p class="note">Losses over the steps: each step faint, the running mean strong. The student&rsquo;s losses '
        "(ca, dm, cdm) are lengths of a pull, not errors: they stay above zero for as long as there is something to "
        "pull towards. What counts is that none of them runs away.</p>"
        f'<div class="charts">{charts}</div>'
    )


def _cards(cards: Sequence[MetricCard]) -> str:
    return f"<h2>What the numbers mean</h2>{''.join(map(_card, cards))}" if cards else ""


def _card(card: MetricCard) -> str:
    told = {
        "formula": card.formula,
        "scale": card.scale,
        "preprocessing": card.preprocessing,
        "comparable": card.comparable,
        "licence": card.licence,
    }
    return f"<h3>{escape(card.name)}: {escape(card.title)}</h3>{_terms(told)}"


def _conditions(conditions: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    parts = [f"<details><summary>{escape(heading)}</summary>{_terms(facts)}</details>" for heading, facts in conditions]
    return f"<h2>How it was measured</h2>{''.join(parts)}" if parts else ""


def _commands(commands: Sequence[tuple[str, str]]) -> str:
    lines = "\n".join(f"<b># {escape(remark)}</b>\n{escape(command)}" for remark, command in commands)
    return f"<h2>Go on</h2><pre>{lines}</pre>" if lines else ""


def _terms(texts: Mapping[str, Any]) -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(str(text))}</dd>" for term, text in texts.items())
    return f"<dl>{terms}</dl>" if terms else ""


_CSS = """
:root { color-scheme: light dark; --paper: #faf9f7; --card: #fff; --ink: #1d1d1f; --soft: #6b6b70; --line: #e3e1dc;
        --accent: #c2410c; --good: #15803d; --bad: #b91c1c; --bar: #c9c5bd; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #131316; --card: #1b1b1f; --ink: #ececee; --soft: #9c9ca3; --line: #2d2d33; --accent: #fb923c;
          --good: #4ade80; --bad: #f87171; --bar: #52525b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 32px; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 10px; text-wrap: balance; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 56px 0 6px; }
h3 { font-size: 15px; margin: 26px 0 6px; }
p { margin: 0 0 12px; max-width: 80ch; }
.lead { font-size: 18px; color: var(--soft); } .note { color: var(--soft); font-size: 14px; }
.warning { border-left: 3px solid var(--bad); padding-left: 12px; }
.scroll { overflow-x: auto; margin: 14px 0; background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 9px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line);
         vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { border-top: 0; font-weight: 500; color: var(--soft); font-size: 13px; }
td small { display: block; color: var(--soft); font-size: 12px; }
td small.better { color: var(--good); } td small.worse { color: var(--bad); }
tr.student td:first-child { color: var(--accent); font-weight: 600; }
/* auto-fill: one chart stays as wide as one of many; auto-fit would make its bars and letters as large as the page */
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 16px; margin: 14px 0; }
.chart { margin: 0; padding: 10px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.chart figcaption { font-size: 13px; color: var(--soft); } .chart figcaption b { color: var(--ink); }
.chart figcaption span { float: right; }
.chart svg { width: 100%; max-width: 340px; height: auto; display: block; }
.chart rect { fill: var(--bar); } .chart rect.student { fill: var(--accent); }
.chart line { stroke: var(--ink); stroke-width: 1.5; }
.chart text { fill: var(--ink); font-size: 11px; } .chart text.value { fill: var(--soft); }
.chart polyline { fill: none; stroke: var(--accent); vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .raw { stroke-width: 1; opacity: .25; } .chart .mean { stroke-width: 2; }
.cases { display: flex; flex-wrap: wrap; gap: 18px 34px; margin: 14px 0; }
.case { display: grid; gap: 6px 8px; max-width: 100%; align-items: start; align-content: start; }
.case .prompt { grid-column: 1 / -1; font-size: 14px; border-top: 1px solid var(--line); padding-top: 8px; }
.case .prompt b { font-weight: 600; } .case .prompt span { color: var(--soft); }
a { color: inherit; }
.all .case { grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); margin: 18px 0; }
.tile { margin: 0; } .tile img { width: 100%; display: block; border-radius: 8px; background: #000; }
.tile img.small { image-rendering: pixelated; }
.tile figcaption { font-size: 12px; color: var(--soft); margin-top: 3px; font-variant-numeric: tabular-nums; }
.sheets { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 20px; margin: 16px 0 8px; }
.sheets h3 { margin: 0 0 2px; } .sheets .student h3 { color: var(--accent); }
.sheet { position: relative; background: #000; border-radius: 10px; overflow: hidden; line-height: 0; }
.sheet img { width: 100%; height: auto; image-rendering: pixelated; }
.sheet div { position: absolute; inset: 0; display: grid; grid-auto-rows: 1fr; }
.sheet i:hover { box-shadow: inset 0 0 0 2px #ffffffb0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; margin: 10px 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 90ch; overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; font-weight: 600; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto;
      font: 13.5px/1.7 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre b { color: var(--soft); font-weight: 400; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
"""
