"""What an evaluation leaves behind for programs and papers: scores.json, .csv, .md and .tex, and pictures.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.intervals import METHODS
from fewstep.evaluation.protocol_id import short_hash
from fewstep.evaluation.scoring import Scored
from fewstep.evaluation.table import Cell, Table
from fewstep.files import write_json, write_text


def write_results(folder: EvaluationFolder, task: Task, table: Table, scored: Sequence[Scored]) -> dict[str, Any]:
    """Write the five files; returns what scores.json holds."""
    summary = _as_json(task, table, scored)
    write_json(folder.path / "scores.json", summary)
    write_text(folder.path / "scores.csv", _csv([_flat(cell) for cell in table.cells]))
    write_text(folder.path / "pictures.csv", _csv(_picture_rows(scored)))
    write_text(folder.path / "scores.md", as_markdown(task, table))
    write_text(folder.path / "scores.tex", as_latex(task, table))
    return summary


def _as_json(task: Task, table: Table, scored: Sequence[Scored]) -> dict[str, Any]:
    """Everything about the scores, as plain data."""
    conditions = {one.id.whole: dict(one.conditions) for one in scored}
    records = {one.record.entry.name: one.record for one in scored}
    return {
        "protocol": short_hash(sorted(conditions)),
        "prompts": {
            "name": task.prompts.name,
            "digest": task.prompts.digest,
            "count": len(task.prompts.items),
        },
        "seeds": list(task.seeds),
        "models": [_model(record) for record in records.values()],
        "scores": [{**asdict(cell), "verdict": cell.verdict} for cell in table.cells],
        "pairs": [{**asdict(pair), "verdict": pair.verdict} for pair in table.pairs],
        "intervals": METHODS,
        "protocols": conditions,
        "warnings": list(table.warnings),
    }


def _picture_rows(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """A row per picture and metric that scores each picture."""
    return [
        {
            "model": one.record.entry.name,
            "metric": one.metric.card.name,
            "prompt_id": picture.item.id,
            "prompt": picture.item.text,
            "seed": picture.seed,
            "frame": picture.frame if picture.clip else "",
            "score": repr(finding.score),
            "protocol": one.id.whole,
        }
        for one in scored
        if not one.metric.of_sets
        for picture, finding in zip(one.pictures, one.findings, strict=True)
    ]


def as_markdown(task: Task, table: Table) -> str:
    """The table for a model card: a row per model, a column per figure, with half the width of its interval."""
    columns = table.columns()
    heads = [f"{figure} {arrow(table, (metric, figure))}" for metric, figure in columns]
    lines = [
        f"| model | steps | calls | {' | '.join(heads)} |",
        f"|---|---:|---:|{'---:|' * len(heads)}",
    ]
    for subject in table.subjects:
        texts = [_format_cell(table.cell(subject.name, column)) for column in columns]
        calls = "-" if subject.calls is None else f"{subject.calls:g}"
        name = f"{subject.name} (teacher)" if subject.role == "teacher" else subject.name
        lines.append(f"| {name} | {subject.steps or '-'} | {calls} | {' | '.join(texts)} |")
    ids = sorted({cell.protocol for cell in table.cells})
    drawn = "clips" if table.about_clips else "pictures"
    lines += [
        "",
        f"{len(task.prompts.items)} prompts ({task.prompts.name}), {len(task.seeds)} {drawn} each; brackets: 95 % "
        f"interval over prompts, the reference pictures held fixed; bold: the interval of the paired difference to the "
        f"teacher leaves out zero. "
        f"{table.about_clips}Protocol {short_hash(ids)}, fewstep evaluate.",
        "",
    ]
    return "\n".join(lines)


def as_latex(task: Task, table: Table) -> str:
    """The same table for a paper, with the commands of booktabs."""
    columns = table.columns()
    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    heads = [f"{_tex(figure)}{arrows[arrow(table, (metric, figure))]}" for metric, figure in columns]
    lines = [
        f"% {len(task.prompts.items)} prompts ({_one_line(task.prompts.name)}), {len(task.seeds)} of each; protocol "
        f"{short_hash(sorted({cell.protocol for cell in table.cells}))}, fewstep evaluate",
        rf"\begin{{tabular}}{{lrr{'r' * len(columns)}}}",
        r"\toprule",
        rf"model & steps & calls & {' & '.join(heads)} \\",
        r"\midrule",
    ]
    for subject in table.subjects:
        calls = "--" if subject.calls is None else f"{subject.calls:g}"
        texts = [_tex_cell(table.cell(subject.name, column)) for column in columns]
        lines.append(rf"{_tex(subject.name)} & {subject.steps or '--'} & {calls} & {' & '.join(texts)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in METHODS.split(". ")), ""])


def _tex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = format_value(cell.value, cell)
    text = rf"\textbf{{{value}}}" if cell.verdict in ("better", "worse") else value
    if cell.interval is None:
        return text
    low, high = format_value(cell.interval.low, cell), format_value(cell.interval.high, cell)
    return rf"{text} {{\scriptsize [{low}, {high}]}}"


def _tex(text: str) -> str:
    """A text as LaTeX prints it."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: rf"\{sign}" for sign in "&%$#_{}"}
    return "".join(special.get(sign, sign) for sign in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def arrow(table: Table, column: tuple[str, str]) -> str:
    """Which way is better; nothing where neither is."""
    better = next(cell.higher_is_better for cell in table.cells if (cell.metric, cell.figure) == column)
    return {True: "↑", False: "↓", None: ""}[better]


def _format_cell(cell: Cell | None) -> str:
    """A figure with its interval, bold where it differs from the teacher's."""
    if cell is None:
        return "-"
    text = format_value(cell.value, cell)
    if cell.interval is not None:
        low, high = format_value(cell.interval.low, cell), format_value(cell.interval.high, cell)
        text = f"{text} [{low}, {high}]"
    return f"**{text}**" if cell.verdict in ("better", "worse") else text


def format_value(value: float, cell: Cell) -> str:
    """As many digits as its interval can tell apart."""
    width = 0.0 if cell.interval is None else cell.interval.high - cell.interval.low
    digits = 2 if abs(cell.value) >= 10 or width >= 1 else 3 if width >= 0.02 or width == 0 else 4
    return f"{value:.{digits}f}"


def _model(record: ModelRecord) -> dict[str, Any]:
    plain: dict[str, Any] = record.model_dump(mode="json")
    return {**plain.pop("entry"), **plain}


def _flat(cell: Cell) -> dict[str, Any]:
    interval, paired = cell.interval, cell.difference_interval
    return {
        "model": cell.model,
        "role": cell.role,
        "metric": cell.metric,
        "figure": cell.figure,
        "value": repr(cell.value),
        "low": "" if interval is None else repr(interval.low),
        "high": "" if interval is None else repr(interval.high),
        "difference": "" if cell.difference is None else repr(cell.difference),
        "difference_low": "" if paired is None else repr(paired.low),
        "difference_high": "" if paired is None else repr(paired.high),
        "verdict": cell.verdict or "",
        "n": cell.n,
        "protocol": cell.protocol,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()
