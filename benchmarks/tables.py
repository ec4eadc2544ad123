"""Write the tables of docs/demo.md from the files that the demo and the sweep wrote: python -m benchmarks.tables

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test compares it with its files.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "demo.md"
RESULTS = ROOT / "docs" / "results"
FIGURES = ("fd", "accuracy", "precision", "recall", "density", "coverage", "diversity", "tv")
DIGITS = {"fd": 2, "accuracy": 3, "kd": 0}
NAMES = {"real": "real data", "teacher_50": "teacher, 50 steps", "teacher_4": "teacher, 4 steps"}


def rows_table() -> str:
    """Real data and the teacher as shipped, the student as the demo measured it."""
    shipped = json.loads((files("fewstep.embedded") / "assets" / "rows.json").read_text())["rows"]
    demo = json.loads((RESULTS / "demo.json").read_text())
    lines = [_head(("", "guidance", *FIGURES))]
    for name, title in NAMES.items():
        row = shipped[name]["row"]
        lines.append(_line((title, "-" if row["guidance"] is None else f"{row['guidance']:g}", *_figures(row))))
    for row in demo["student_4_per_seed"]:
        lines.append(_line((f"student, 4 steps, seed {row['seed']}", "off", *_figures(row))))
    lines.append(_line(("**student, mean**", "off", *_figures(demo["student_4"]))))
    return "\n".join(lines)


def sweep_table() -> str:
    """Every variant of the sweep with the mean over its seeds."""
    variants = json.loads((ROOT / "benchmarks" / "sweep.json").read_text())
    results = defaultdict(list)
    for path in sorted((RESULTS / "sweep").glob("*.json")):
        row = json.loads(path.read_text())
        results[row["variant"]].append(row)
    lines = [_head(("variant", "settings", "seeds", *FIGURES))]
    for name, settings in variants.items():
        if results[name]:
            differs = ", ".join(f"{key}={value}" for key, value in settings.items()) or "-"
            lines.append(_line((name, differs, str(len(results[name])), *_figures(_mean(results[name])))))
    return "\n".join(lines)


def grids_table() -> str:
    """Teacher and student at four steps on grids of several time shifts."""
    figures = ("fd", "accuracy", "recall", "tv")
    titles = [f"{model} {figure}" for model in ("teacher", "student") for figure in figures]
    lines = [_head(("shift", "grid", "guidance of the teacher", *titles))]
    for found in json.loads((RESULTS / "grids.json").read_text()):
        values = [
            f"{found[model][figure]:.{DIGITS.get(figure, 2)}f}"
            for model in ("teacher", "student")
            for figure in figures
        ]
        grid = ", ".join(f"{sigma:.2g}" for sigma in found["sigmas"])
        lines.append(_line((f"{found['shift']:g}", grid, f"{found['teacher']['guidance']:g}", *values)))
    return "\n".join(lines)


TABLES = {"rows": rows_table, "sweep": sweep_table, "grids": grids_table}


def filled(page: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """The page with every table as its files say."""
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda match, table=table: f"{match[1]}{table()}\n{match[2]}", page)
    return page


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {figure: sum(row[figure] for row in rows) / len(rows) for figure in FIGURES}


def _figures(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[figure]:.{DIGITS.get(figure, 2)}f}" for figure in FIGURES]


def _head(cells: Sequence[str]) -> str:
    return _line(cells) + "\n" + _line(["---"] * len(cells))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
