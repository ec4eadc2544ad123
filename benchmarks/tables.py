"""Write the tables of docs/demo.md and docs/scenes.md from what was measured: python -m benchmarks.tables

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test compares it with its files.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from benchmarks.evidence.page import findings_of, points_table
from benchmarks.pages import RESULTS, ROOT, filled, table
from benchmarks.scenes_table import gates_table, searched_table, tried_table

FIGURES = ("fd", "accuracy", "precision", "recall", "density", "coverage", "diversity", "tv")
DIGITS = {"fd": 2, "accuracy": 3, "kd": 0}
CHOICES = ("CDM", "random schedule without cdm", "one simulation per update", "stratified anchors", "with dp")
NAMES = {"real": "real data", "teacher_50": "teacher, 50 steps", "teacher_4": "teacher, 4 steps"}


def rows_table() -> str:
    """Real data and the teacher as shipped, the student as the demo measured it."""
    shipped = json.loads((files("fewstep.embedded") / "assets" / "digits" / "rows.json").read_text())["rows"]
    demo = json.loads((RESULTS / "demo.json").read_text())
    lines = [("", "guidance", *FIGURES)]
    for name, title in NAMES.items():
        row = shipped[name]["row"]
        lines.append((title, "-" if row["guidance"] is None else f"{row['guidance']:g}", *_figures(row)))
    for row in demo["student_4_per_seed"]:
        lines.append((f"student, 4 steps, seed {row['seed']}", "off", *_figures(row)))
    lines.append(("**student, mean**", "off", *_figures(demo["student_4"])))
    return table(lines)


def choice_table() -> str:
    """What the recipe's settings were chosen from."""
    found = findings_of()
    settings = next(group for group in found.study.groups if group.name == "settings")
    names = (*CHOICES, *(method.name for method in settings.methods))
    return points_table(found, [found.line(name) for name in names])


def grids_table() -> str:
    """Teacher and student at four steps on grids of several time shifts."""
    figures = ("fd", "accuracy", "recall", "tv")
    titles = [f"{model} {figure}" for model in ("teacher", "student") for figure in figures]
    lines = [("shift", "grid", "guidance of the teacher", *titles)]
    for found in json.loads((RESULTS / "grids.json").read_text()):
        values = [
            f"{found[model][figure]:.{DIGITS.get(figure, 2)}f}"
            for model in ("teacher", "student")
            for figure in figures
        ]
        grid = ", ".join(f"{sigma:.2g}" for sigma in found["sigmas"])
        lines.append((f"{found['shift']:g}", grid, f"{found['teacher']['guidance']:g}", *values))
    return table(lines)


PAGES = {
    ROOT / "docs" / "demo.md": {"rows": rows_table, "choice": choice_table, "grids": grids_table},
    ROOT / "docs" / "scenes.md": {"searched": searched_table, "gates": gates_table, "tried": tried_table},
}


def _figures(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[figure]:.{DIGITS.get(figure, 2)}f}" for figure in FIGURES]


if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(filled(page.read_text(), tables))
