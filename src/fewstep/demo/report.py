"""report.html: the pictures side by side, the measured scores under them, and how to read both.

One file that needs no network: pictures and charts are inside it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from fewstep.demo.chart import line_chart
from fewstep.demo.protocol import Row
from fewstep.demo.showcase import Panel, Sheet
from fewstep.evaluation.report import page

TITLES = {
    "real": "Real data",
    "teacher_50": "Teacher, 50 steps",
    "teacher_4": "Teacher, 4 steps",
    "student_4": "Student, 4 steps",
}
COLUMNS = {
    "fd": "FD &darr;",
    "kd": "KD &darr;",
    "accuracy": "accuracy &uarr;",
    "precision": "precision &uarr;",
    "recall": "recall &uarr;",
    "density": "density",
    "coverage": "coverage &uarr;",
    "diversity": "diversity &rarr; 1",
    "tv": "colour TV &darr;",
}
_EXPLANATIONS = {
    "FD": "Frechet distance between the classifier's features of these pictures and of unseen real ones. The main "
    "score: it falls when pictures look right and when they vary as the data does.",
    "KD": "Kernel distance, times 1000, on the same features: a second opinion, unbiased, so about zero for real data.",
    "accuracy": "Share of pictures in which the classifier finds both the digit and the colour that were asked for.",
    "precision, density": "Do the pictures lie where real ones lie? Guidance raises both while it narrows the choice.",
    "recall, coverage": "Are the real pictures reached? Falls when a model draws the same few again and again.",
    "diversity": "How far apart pictures of one prompt are, relative to real pictures. Below 1 is too uniform, above 1 "
    "too wild.",
    "colour TV": "Where the prompt leaves the colour open, all seven should be equally frequent: the share of pictures "
    "that would have to change colour.",
}

_CSS = """
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 20px; margin: 16px 0 8px; }
.panel h3 { font-size: 15px; margin: 0 0 2px; }
.panel .fd { color: var(--soft); font-size: 13px; margin: 0 0 8px; font-variant-numeric: tabular-nums; }
.panel.student h3 { color: var(--accent); }
.sheet { position: relative; background: #000; border-radius: 10px; overflow: hidden; line-height: 0; }
.panel.student .sheet { box-shadow: 0 0 0 2px var(--accent); }
.sheet img { width: 100%; height: auto; image-rendering: pixelated; }
.sheet div { position: absolute; inset: 0; display: grid; grid-template-columns: repeat(7, 1fr); grid-auto-rows: 1fr; }
.sheet i:hover { box-shadow: inset 0 0 0 2px #ffffffb0; }
tr.student td { color: var(--accent); font-weight: 600; }
tr.seed td { color: var(--soft); font-size: 13px; padding-top: 4px; padding-bottom: 4px; border-top: 0; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 8px 16px; align-items: center; margin: 22px 0 8px; }
.bars span { font-size: 14px; }
.bars div { display: flex; align-items: center; gap: 10px; font-size: 14px; font-variant-numeric: tabular-nums; }
.bars div::before { content: ""; height: 16px; width: var(--w); background: var(--bar); border-radius: 3px; }
.bars .student { color: var(--accent); font-weight: 600; }
.bars .student::before { background: var(--accent); }
.chart figcaption { display: flex; justify-content: space-between; }
.chart polyline { fill: none; stroke: var(--accent); vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .raw { stroke-width: 1; opacity: .25; } .chart .mean { stroke-width: 2; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto;
      font: 13.5px/1.7 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre b { color: var(--soft); font-weight: 400; }
@media (max-width: 760px) { .panels { grid-template-columns: minmax(0, 1fr); } h1 { font-size: 27px; } }
"""
"""What the page has beyond the looks of evaluation's report."""


@dataclass(frozen=True)
class ReportContents:
    """Everything that the report shows.

    Attributes:
        rows: ``real``, ``teacher_50``, ``teacher_4``, ``student_4``.
        student_rows: The student's row of each training seed.
        panels: Pictures, from left to right.
        curves: The losses of the first training seed.
        calls: Network calls per picture of each row that has any.
        facts: Lines on how it was made.
        commands: What to do next: a remark and a command each.
    """

    rows: Mapping[str, Row]
    student_rows: Mapping[int, Row]
    panels: Sequence[Panel]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    calls: Mapping[str, int]
    facts: Sequence[str]
    commands: Sequence[tuple[str, str]]


def render(contents: ReportContents) -> str:
    """Write the report as one HTML page."""
    sections = [
        _opening(contents),
        _panels(contents),
        _scores(contents),
        _training(contents),
        _next(contents),
        f"<footer>{'<br>'.join(escape(fact) for fact in contents.facts)}</footer>",
    ]
    return page("fewstep: four steps instead of fifty", sections, css=_CSS)


def _opening(contents: ReportContents) -> str:
    student, slow, fast = (contents.rows[name] for name in ("student_4", "teacher_50", "teacher_4"))
    calls = contents.calls
    return (
        f"<h1>{calls['student_4']} network calls instead of {calls['teacher_50']}</h1>"
        f'<p class="lead">The student was distilled from the teacher on this machine. It draws a picture with '
        f"{calls['student_4']} network calls at a Frechet distance of {student.fd:.2f}; its teacher needs "
        f"{calls['teacher_50']} calls for {slow.fd:.2f}, and reaches {fast.fd:.2f} when it has to make do with as few "
        f"steps as the student.</p>" + _bars(contents.rows)
    )


def _bars(rows: Mapping[str, Row]) -> str:
    longest = max(row.fd for row in rows.values()) or 1.0
    bars = []
    for name, row in rows.items():
        css = ' class="student"' if name.startswith("student") else ""
        bars.append(f'<span>{TITLES[name]}</span><div{css} style="--w:{82 * row.fd / longest:.1f}%">{row.fd:.2f}</div>')
    return f'<div class="bars" role="img" aria-label="Frechet distances">{"".join(bars)}</div>'


def _panels(contents: ReportContents) -> str:
    return (
        "<h2>Every digit in every colour</h2>"
        '<p class="note">Prompts such as &ldquo;a red handwritten three&rdquo;, all at seed 0, nothing picked: rows '
        "are the digits, columns the colours. Point at a picture to read its prompt.</p>"
        f'<div class="panels">{"".join(_panel(panel, panel.full, contents) for panel in contents.panels)}</div>'
        "<h2>When the prompt leaves the colour open</h2>"
        '<p class="note">Prompts such as &ldquo;a handwritten three&rdquo;: rows are the digits, columns the seeds 0 '
        "to 6. Real data has every colour equally often.</p>"
        f'<div class="panels">{"".join(_panel(panel, panel.open, contents) for panel in contents.panels)}</div>'
    )


def _panel(panel: Panel, sheet: Sheet, contents: ReportContents) -> str:
    row = contents.rows[panel.row]
    css = "panel student" if panel.row.startswith("student") else "panel"
    guidance = "no guidance" if row.guidance in (None, 1.0) else f"guidance {row.guidance:g}"
    calls = f"{panel.calls} network calls per picture, {guidance}"
    cells = "".join(
        f'<i title="{escape(prompt)}, seed {seed}"></i>'
        for prompt, seed in zip(sheet.prompts, sheet.seeds, strict=True)
    )
    return (
        f'<div class="{css}"><h3>{escape(panel.title)}</h3><p class="fd">{calls}</p>'
        f'<div class="sheet"><img src="{_data_url(sheet)}" alt="{len(sheet.prompts)} pictures: {escape(panel.title)}">'
        f"<div>{cells}</div></div></div>"
    )


def _data_url(sheet: Sheet) -> str:
    """A sheet as a PNG inside a URL."""
    buffer = io.BytesIO()
    Image.fromarray(sheet.mosaic().numpy()).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scores(contents: ReportContents) -> str:
    head = "".join(f"<th>{title}</th>" for title in COLUMNS.values())
    body = []
    for name, row in contents.rows.items():
        css = ' class="student"' if name.startswith("student") else ""
        body.append(f"<tr{css}><td>{TITLES[name]}</td>{_cells(row, contents.calls.get(name))}</tr>")
    if len(contents.student_rows) > 1:
        for seed, row in contents.student_rows.items():
            label = f"training seed {seed}"
            body.append(f'<tr class="seed"><td>{label}</td>{_cells(row, contents.calls["student_4"])}</tr>')
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in _EXPLANATIONS.items())
    n = contents.rows["real"].n
    return (
        "<h2>Scores</h2>"
        f'<p class="note">One protocol for every row: {n:,} pictures of the 70 full prompts and {n:,} of the 10 '
        "prompts that leave the colour open, each the mean over three noise seeds. The teacher is shown at the "
        "guidance with its best FD.</p>"
        f'<div class="scroll"><table><thead><tr><th></th>{head}<th>guidance</th><th>calls</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div><dl>{terms}</dl>"
    )


def _cells(row: Row, calls: int | None) -> str:
    texts = [format_figure(figure, getattr(row, figure)) for figure in COLUMNS]
    texts.append("&ndash;" if row.guidance is None else f"{row.guidance:g}")
    texts.append("&ndash;" if calls is None else str(calls))
    return "".join(f"<td>{text}</td>" for text in texts)


def format_figure(figure: str, value: float) -> str:
    """A figure with as many digits as three noise seeds can tell apart."""
    return f"{value:.1f}" if figure == "kd" else f"{value:.3f}" if figure == "accuracy" else f"{value:.2f}"


def _training(contents: ReportContents) -> str:
    charts = "".join(line_chart(name, points) for name, points in contents.curves.items())
    return (
        "<h2>Training</h2>"
        '<p class="note">Losses over the steps: each step faint, the running mean strong. The student&rsquo;s losses '
        "(ca, dm, cdm) are lengths of a pull, not errors: they stay above zero for as long as there is something to "
        "pull towards. What counts is that none of them runs away.</p>"
        f'<div class="charts">{charts}</div>'
    )


def _next(contents: ReportContents) -> str:
    lines = "\n".join(f"<b># {escape(remark)}</b>\n{escape(command)}" for remark, command in contents.commands)
    return f"<h2>Go on</h2><pre>{lines}</pre>"
