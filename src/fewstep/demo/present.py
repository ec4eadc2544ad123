"""What a finished demo leaves to look at: report.html, as evaluation writes it, and picture.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import fewstep
from fewstep.config.recipe import Recipe
from fewstep.demo.protocol import FULL, OPEN, Row
from fewstep.demo.result import TITLES, SeedResult
from fewstep.demo.shipped_rows import TEACHER_STEPS, load_teacher, student_sigmas
from fewstep.demo.showcase import Panel, compose, draw_panel, draw_with
from fewstep.evaluation.models import Side
from fewstep.evaluation.report import Report
from fewstep.evaluation.report_charts import Losses
from fewstep.evaluation.report_pictures import CaptionedSheet, Sheet, sheets_side_by_side
from fewstep.evaluation.table import Cell, Subject, Table
from fewstep.runs.metrics import all_lines, curves
from fewstep.sampling.loaded import load_model
from fewstep.sampling.pictures import save_picture
from fewstep.sampling.sampler import teacher_sigmas

STUDENT = "student"
METRICS = "metrics.jsonl"
REPORT, PICTURE = "report.html", "picture.png"
_FIGURES = {
    "fd": ("fid", "FD"),
    "kd": ("kid", "KD"),
    "accuracy": ("digits", "accuracy"),
    "precision": ("prdc", "precision"),
    "recall": ("prdc", "recall"),
    "density": ("prdc", "density"),
    "coverage": ("prdc", "coverage"),
    "diversity": ("spread", "diversity"),
    "tv": ("colours", "colour TV"),
}
"""The metric of each figure of a row, and what the page calls it."""
_NEITHER_WAY = ("density", "diversity")
_WORDS = {
    "FD": "Frechet distance between the classifier's features of these pictures and of unseen real ones. The main "
    "score: it falls when pictures look right and when they vary as the data does.",
    "KD": "Kernel distance, times 1000, on the same features: a second opinion. Real data is not at zero either: its "
    "pictures are made from other handwritten digits than the reference, and from few.",
    "accuracy": "Share of pictures in which the classifier finds both the digit and the colour that were asked for.",
    "precision, density": "Do the pictures lie where real ones lie? Guidance raises both while it narrows the choice.",
    "recall, coverage": "Are the real pictures reached? Falls when a model draws the same few again and again.",
    "diversity": "How far apart pictures of one prompt are, relative to real pictures: 1 is best, less is too uniform, "
    "more too wild.",
    "colour TV": "Where the prompt leaves the colour open, all seven should be equally frequent: the share of pictures "
    "that would have to change colour.",
}


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
    report = report_of(
        rows,
        {student.seed: student.row for student in students},
        panels,
        losses=read_losses(run / METRICS),
        commands=_commands(run / STUDENT),
        footer=_facts(recipe, students, threads),
    )
    report.write(output / REPORT)
    save_picture(compose(panels, rows), output / PICTURE)


def report_of(
    rows: Mapping[str, Row],
    seeds: Mapping[int, Row],
    panels: Sequence[Panel],
    *,
    losses: Mapping[str, Losses],
    commands: Sequence[tuple[str, str]] = (),
    footer: Sequence[str] = (),
) -> Report:
    """Evaluation's report, of rows most of which ship as figures without their pictures.

    Args:
        rows: ``real``, ``teacher_50``, ``teacher_4`` and ``student_4``.
        seeds: The student's row of each training seed; listed when there are several.
        panels: Pictures, from left to right.
        losses: Of the first training seed.
        commands, footer: As in a report.
    """
    drawn = {panel.row: panel for panel in panels}
    student, slow, fast = (rows[name] for name in ("student_4", "teacher_50", "teacher_4"))
    few, many = drawn["student_4"].calls, drawn["teacher_50"].calls
    cards = {metric.card.name: metric.card for part in (FULL, OPEN) for metric in part.create_metrics()}
    n = rows["real"].n
    return Report(
        title="fewstep: four steps instead of fifty",
        headline=f"{few} network calls instead of {many}",
        lead=f"The student was distilled from the teacher on this machine. It draws a picture with {few} network calls "
        f"at a Frechet distance of {student.fd:.2f}; its teacher needs {many} calls for {slow.fd:.2f}, and reaches "
        f"{fast.fd:.2f} when it has to make do with as few steps as the student.",
        table=_table(rows, seeds, drawn, {name: card.higher_is_better for name, card in cards.items()}),
        methods=f"One protocol for every row: {n:,} pictures of the 70 full prompts and {n:,} of the 10 prompts that "
        "leave the colour open, each the mean over three noise seeds. The teacher is shown at the guidance with its "
        "best FD.",
        words=_WORDS,
        showcase=(
            sheets_side_by_side(
                "Every digit in every colour",
                'Prompts such as "a red handwritten three", all at seed 0, nothing picked: rows are the digits, '
                "columns the colours. Point at a picture to read its prompt.",
                [_captioned(panel, panel.full, rows) for panel in panels],
            ),
            sheets_side_by_side(
                "When the prompt leaves the colour open",
                'Prompts such as "a handwritten three": rows are the digits, columns the seeds 0 to 6. Real data has '
                "every colour equally often.",
                [_captioned(panel, panel.open, rows) for panel in panels],
            ),
        ),
        losses=losses,
        cards=tuple(cards.values()),
        commands=commands,
        footer=footer,
    )


def _table(
    rows: Mapping[str, Row], seeds: Mapping[int, Row], drawn: Mapping[str, Panel], better: Mapping[str, bool]
) -> Table:
    """The rows as evaluation's table: without intervals, which need the pictures of every row."""
    named = {TITLES[name]: (row, drawn.get(name)) for name, row in rows.items()}
    if len(seeds) > 1:
        named |= {f"training seed {seed}": (row, drawn["student_4"]) for seed, row in seeds.items()}
    subjects, cells = [], []
    for name, (row, panel) in named.items():
        role: Side | None = "student" if panel is drawn["student_4"] else None
        steps, calls = (None, None) if panel is None else (panel.steps, panel.calls)
        subjects.append(Subject(name, role, steps, calls, row.guidance))
        for field, (metric, figure) in _FIGURES.items():
            cells.append(
                Cell(
                    model=name,
                    role=role,
                    metric=metric,
                    figure=figure,
                    value=getattr(row, field),
                    higher_is_better=None if field in _NEITHER_WAY else better[metric],
                    protocol="",
                    n=row.n,
                )
            )
    return Table(tuple(subjects), tuple(cells))


def _captioned(panel: Panel, sheet: Sheet, rows: Mapping[str, Row]) -> CaptionedSheet:
    guidance = rows[panel.row].guidance
    told = "no guidance" if guidance in (None, 1.0) else f"guidance {guidance:g}"
    caption = f"{panel.calls} network calls per picture, {told}"
    return CaptionedSheet(sheet, TITLES[panel.row], caption, "student" if panel.row == "student_4" else None)


def read_losses(metrics: Path) -> dict[str, Losses]:
    """The losses of a run's metrics.jsonl, by name."""
    found = curves(all_lines(metrics))
    return {name.removeprefix("loss/"): curve for name, curve in found.items() if name.startswith("loss/")}


def _panels(folder: Path, rows: Mapping[str, Row]) -> list[Panel]:
    teacher, student = load_teacher(), load_model(folder, "cpu")
    many, few = teacher_sigmas(teacher.adapter, TEACHER_STEPS), student_sigmas(teacher.adapter)
    panels = []
    for name, model, sigmas in (
        ("teacher_50", teacher, many),
        ("teacher_4", teacher, few),
        ("student_4", student, student.sigmas(len(few))),
    ):
        guidance = rows[name].guidance or 1.0
        draw = draw_with(model, sigmas=sigmas, guidance_scale=guidance)
        # guidance asks the network twice at every step
        calls = len(sigmas) * (1 if guidance == 1.0 else 2)
        panels.append(draw_panel(draw, row=name, steps=len(sigmas), calls=calls))
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
