"""What a finished demo leaves to look at: report.html and picture.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import fewstep
from fewstep.config.recipe import Recipe
from fewstep.demo.chart import read_curves
from fewstep.demo.picture import compose
from fewstep.demo.protocol import Row
from fewstep.demo.report import ReportContents, render
from fewstep.demo.result import SeedResult
from fewstep.demo.shipped_rows import TEACHER_STEPS, load_teacher, student_sigmas
from fewstep.demo.showcase import Panel, draw_panel, draw_with
from fewstep.files import explain_write_errors
from fewstep.sampling.generate import load_model
from fewstep.sampling.pictures import save_picture
from fewstep.sampling.sampler import teacher_sigmas

STUDENT = "student"
METRICS = "metrics.jsonl"
REPORT, PICTURE = "report.html", "picture.png"


def write_report(
    output: Path, *, rows: Mapping[str, Row], students: Sequence[SeedResult], recipe: Recipe, threads: int
) -> None:
    """Write report.html and picture.png, with the pictures of the first training seed.

    Args:
        output: The demo's folder.
        rows: ``real``, ``teacher_50``, ``teacher_4`` and ``student_4``.
        students: One per training seed.
        recipe: What they were distilled with.
        threads: Threads that they were distilled with.
    """
    run = output / students[0].run
    panels = _panels(run / STUDENT, rows)
    contents = ReportContents(
        rows=rows,
        student_rows={student.seed: student.row for student in students},
        panels=panels,
        curves=read_curves(run / METRICS),
        calls={panel.row: panel.calls for panel in panels},
        facts=_facts(recipe, students, threads),
        commands=_commands(run / STUDENT),
    )
    with explain_write_errors(output):
        (output / REPORT).write_text(render(contents), encoding="utf-8")
    save_picture(compose(panels, rows), output / PICTURE)


def _panels(folder: Path, rows: Mapping[str, Row]) -> list[Panel]:
    teacher, student = load_teacher(), load_model(folder, "cpu")
    many, few = teacher_sigmas(teacher.adapter, TEACHER_STEPS), student_sigmas(teacher.adapter)
    plan = [
        ("teacher_50", f"Teacher, {len(many)} steps", teacher, many),
        ("teacher_4", f"Teacher, {len(few)} steps", teacher, few),
        ("student_4", f"Student, {len(few)} steps", student, student.sigmas(len(few))),
    ]
    panels = []
    for name, title, model, sigmas in plan:
        guidance = rows[name].guidance or 1.0
        draw = draw_with(model, sigmas=sigmas, guidance_scale=guidance)
        # guidance asks the network twice at every step
        calls = len(sigmas) * (1 if guidance == 1.0 else 2)
        panels.append(draw_panel(draw, row=name, title=title, calls=calls))
    return panels


def _facts(recipe: Recipe, students: Sequence[SeedResult], threads: int) -> list[str]:
    times = ", ".join(f"seed {student.seed}: {student.train_seconds:.0f} s" for student in students)
    return [
        f"fewstep {fewstep.__version__}, PyTorch {torch.__version__}, recipe {recipe.name}, "
        f"{recipe.config.budget.student_updates} student updates of batch {recipe.config.batch}.",
        f"Distilled on the CPU with {threads} thread{'s' if threads > 1 else ''} ({times}).",
        "Teacher and real data: the rows that ship with the package; docs/demo.md says how they were measured.",
    ]


def _commands(folder: Path) -> list[tuple[str, str]]:
    student = folder.as_posix()
    picture = '--prompt "a cyan handwritten seven" --steps 4 --seed 7 --output seven.png'
    return [
        (
            "draw a picture with the student, a folder that stock diffusers loads too",
            f"fewstep sample {student} {picture}",
        ),
        (
            "measure it against its teacher, at another number of steps",
            f"fewstep evaluate {student} --steps 2 --seeds 20",
        ),
        ("distil with other settings", "fewstep train digits terms.ca.scale=1 budget.student_updates=300"),
        ("see how much training seeds differ", "fewstep demo --seed 0 --seed 1 --seed 2"),
        ("every recipe, up to Stable Diffusion 3", "fewstep recipes"),
    ]
