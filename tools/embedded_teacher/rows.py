"""Measure the rows that ship: real data, and the teacher at 50 and at 4 steps, each at its best guidance."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import Tensor

from fewstep.demo.protocol import (
    NOISE_SEEDS,
    Draw,
    Judge,
    Pixels,
    PromptSet,
    Row,
    draw_with,
    full_set,
    mean_row,
    open_set,
)
from fewstep.demo.rows import TEACHER_STEPS, MeasuredRow, ShippedRows, load_teacher, student_sigmas
from fewstep.embedded import assets
from fewstep.embedded.classifier import DigitClassifier
from fewstep.sampling.generate import TextToImage
from fewstep.sampling.sampler import teacher_sigmas
from fewstep.scores.statistics.diversity import within_prompt_diversity
from fewstep.scores.statistics.frechet import frechet_distance
from tools.embedded_teacher.pictures import BaseDigits, draw_prompted, load_held_out

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
OPEN_SEED_OFFSET = 500_000
"""Added to the seed of real pictures of the open prompts, so that they are not the pictures of the full ones."""
Notify = Callable[[str], None]


def measure_rows(folder: Path | None = None, *, notify: Notify = print) -> ShippedRows:
    """Measure real data and the teacher at 50 steps and on the student's grid.

    Args:
        folder: The assets; those of the package when None.
        notify: Is told each result as a line.
    """
    judge = load_judge(folder)
    teacher = load_teacher(folder)
    rows = {"real": measure_real(judge, load_held_out(folder))}
    notify(f"real: FD {rows['real'].row.fd:.3f}, accuracy {rows['real'].row.accuracy:.4f}")
    for sigmas in (student_sigmas(teacher.adapter), teacher_sigmas(teacher.adapter, TEACHER_STEPS)):
        name = f"teacher_{len(sigmas)}"
        draw_at = partial(_draw_at, teacher, sigmas)
        rows[name] = measure_teacher(judge, draw_at, notify=partial(_named, notify, name))
    return ShippedRows(judge.real_diversity, rows)


def _draw_at(teacher: TextToImage, sigmas: Tensor, scale: float) -> Draw:
    return draw_with(teacher, sigmas=sigmas, guidance_scale=scale)


def _named(notify: Notify, name: str, line: str) -> None:
    notify(f"{name}: {line}")


def write_rows(rows: ShippedRows, path: Path) -> None:
    """Write ``rows.json``."""
    contents = asdict(rows)
    for measured in contents["rows"].values():
        measured["fd_by_guidance"] = {f"{scale:g}": fd for scale, fd in measured["fd_by_guidance"].items()}
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def load_judge(folder: Path | None = None) -> Judge:
    """Load what rows are measured against, with the diversity of real pictures measured anew.

    Args:
        folder: The assets; those of the package when None.
    """
    classifier, free = assets.load_classifier(folder), open_set()
    diversity = real_diversity(classifier, load_held_out(folder), free)
    return Judge(classifier, assets.load_reference(folder), diversity, full_set(), free)


def measure_real(judge: Judge, held_out: BaseDigits, *, noise_seeds: Sequence[int] = NOISE_SEEDS) -> MeasuredRow:
    """The row of real data: the floor, which only the finite number of pictures keeps from being perfect."""
    rows = tuple(judge.measure(*real_pixels(judge, held_out, seed), guidance=None) for seed in noise_seeds)
    return MeasuredRow(mean_row(rows), rows, {})


def real_pixels(judge: Judge, held_out: BaseDigits, seed: int) -> tuple[Pixels, Pixels]:
    """Real pictures of both prompt sets, drawn from held-out digits."""
    full = draw_prompted(held_out, _choices(judge.full), seed=seed)
    free = draw_prompted(held_out, _choices(judge.open), seed=seed + OPEN_SEED_OFFSET)
    return full.pixels, free.pixels


def real_diversity(classifier: DigitClassifier, held_out: BaseDigits, prompts: PromptSet) -> float:
    """Within-prompt diversity of real pictures of the open prompts, the mean over the protocol's seeds."""
    values = []
    for seed in NOISE_SEEDS:
        pictures = draw_prompted(held_out, _choices(prompts), seed=seed + OPEN_SEED_OFFSET)
        values.append(within_prompt_diversity(classifier.predict(pictures.pixels).features, prompts.digits))
    return sum(values) / len(values)


def _choices(prompts: PromptSet) -> list[tuple[int, int | None]]:
    """Digit and colour of each picture, as the real data is asked for them."""
    digits = prompts.digits.tolist()
    colours = [None] * len(digits) if prompts.colours is None else prompts.colours.tolist()
    return list(zip(digits, colours, strict=True))


def measure_teacher(
    judge: Judge,
    draw_at: Callable[[float], Draw],
    *,
    guidances: Sequence[float] = GUIDANCES,
    noise_seeds: Sequence[int] = NOISE_SEEDS,
    notify: Notify = lambda line: None,
) -> MeasuredRow:
    """Measure the teacher at the guidance scale that suits it best.

    The scale is chosen by the Frechet distance on the first noise seed; the chosen one is measured on all of them.

    Args:
        judge: What it is measured against.
        draw_at: The teacher's pictures at a guidance scale.
        guidances: The scales to choose from.
        noise_seeds: The protocol's noise seeds.
        notify: Is told each result as a line.
    """
    first = noise_seeds[0]
    pictures: dict[float, Pixels] = {}
    fds: dict[float, float] = {}
    for scale in guidances:
        pictures[scale] = draw_at(scale)(judge.full.prompts, judge.full.seeds(first))
        fds[scale] = distance(judge, pictures[scale])
        notify(f"guidance {scale:g}: FD {fds[scale]:.3f} on noise seed {first}")
    best = best_guidance(fds)
    draw = draw_at(best)
    rows: list[Row] = []
    for seed in noise_seeds:
        full = pictures[best] if seed == first else draw(judge.full.prompts, judge.full.seeds(seed))
        rows.append(judge.measure(full, draw(judge.open.prompts, judge.open.seeds(seed)), guidance=best))
        notify(f"guidance {best:g}, noise seed {seed}: FD {rows[-1].fd:.3f}, accuracy {rows[-1].accuracy:.4f}")
    return MeasuredRow(mean_row(rows), tuple(rows), fds)


def distance(judge: Judge, full_pixels: Pixels) -> float:
    """Frechet distance alone, by which the teacher's guidance is chosen."""
    return frechet_distance(judge.reference, judge.classifier.predict(full_pixels).features)


def best_guidance(fd_by_guidance: Mapping[float, float]) -> float:
    """The guidance scale with the smallest Frechet distance; the smaller scale of two equal ones."""
    return min(fd_by_guidance, key=lambda scale: (fd_by_guidance[scale], scale))
