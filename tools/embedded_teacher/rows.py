"""Measure the rows that ship: real data, and the teacher at 50 and at 4 steps, each at its best guidance."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from fewstep.demo.protocol import FULL, Part, Protocol, Row, figures, mean_row
from fewstep.demo.shipped_rows import TEACHER_STEPS, MeasuredRow, ShippedRows, load_teacher, student_sigmas
from fewstep.embedded.digits.prompts import NUM_COLOURS, NUM_DIGITS
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.pictures import to_pil
from fewstep.sampling.sampler import teacher_sigmas
from fewstep.scores.metric import Finding, Picture
from fewstep.scores.scoring import loaded
from tools.embedded_teacher.pictures import BaseDigits, draw_prompted, load_held_out

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
OPEN_SEED_OFFSET = 500_000
"""Added to the seed of real pictures of the open prompts, so that they are not the pictures of the full ones."""
Notify = Callable[[str], None]


def measure_rows(*, notify: Notify = print) -> ShippedRows:
    """Measure real data and the teacher at 50 steps and on the student's grid; each result is told as a line."""
    held_out, plain = load_held_out(), Protocol(1.0)
    protocol = replace(plain, real_diversity=real_diversity(plain, held_out))
    rows = {"real": measure_real(protocol, held_out)}
    notify(f"real: FD {rows['real'].row.fd:.3f}, accuracy {rows['real'].row.accuracy:.4f}")
    adapter = load_teacher().adapter
    with tempfile.TemporaryDirectory() as work:
        for sigmas in (student_sigmas(adapter), teacher_sigmas(adapter, TEACHER_STEPS)):
            name, teacher = f"teacher_{len(sigmas)}", ModelSpec(model="fewstep:digits", sigmas=tuple(sigmas.tolist()))
            rows[name] = measure_teacher(protocol, teacher, Path(work), notify=partial(_named, notify, name))
    return ShippedRows(protocol.real_diversity, rows)


def _named(notify: Notify, name: str, line: str) -> None:
    notify(f"{name}: {line}")


def write_rows(rows: ShippedRows, path: Path) -> None:
    """Write ``rows.json``."""
    contents = asdict(rows)
    for measured in contents["rows"].values():
        measured["fd_by_guidance"] = {f"{scale:g}": fd for scale, fd in measured["fd_by_guidance"].items()}
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def measure_real(protocol: Protocol, held_out: BaseDigits) -> MeasuredRow:
    """The row of real data: the floor, which only the finite number of pictures keeps from being perfect."""
    rows = []
    for seed in protocol.noise_seeds:
        full = real_figures(protocol.full, held_out, seed)
        free = real_figures(protocol.open, held_out, seed + OPEN_SEED_OFFSET)
        rows.append(protocol.row({**full, **free}, guidance=None))
    return MeasuredRow(mean_row(rows), tuple(rows), {})


def real_diversity(protocol: Protocol, held_out: BaseDigits) -> float:
    """Spread of real pictures of the open prompts, the mean over the protocol's seeds."""
    part = replace(protocol.open, metrics=("spread",))
    spreads = [real_figures(part, held_out, seed + OPEN_SEED_OFFSET)["spread"] for seed in protocol.noise_seeds]
    return sum(spreads) / len(spreads)


def real_figures(part: Part, held_out: BaseDigits, seed: int) -> dict[str, float]:
    """The figures of real pictures of a part's prompts, drawn from held-out digits; they need no file."""
    asked = [(item, copy) for item in load_prompt_set(part.prompts).items for copy in range(part.copies)]
    pictures = [Picture(Path(f"{item.id}.{copy}"), item, copy) for item, copy in asked]
    images = to_pil(draw_prompted(held_out, _choices(part), seed=seed).pixels)
    findings: dict[str, list[Finding]] = {}
    found: dict[str, float] = {}
    for metric in part.create_metrics():
        key = metric.findings_key or metric.card.name
        if key not in findings:
            with loaded(metric, torch.device("cpu")):
                batches = (slice(i, i + metric.settings.batch) for i in range(0, len(images), metric.settings.batch))
                findings[key] = [one for batch in batches for one in metric.look(pictures[batch], images[batch])]
        found |= metric.conclude(pictures, findings[key])
    return found


def _choices(part: Part) -> list[tuple[int, int | None]]:
    """Digit and colour of each picture, as the real data is asked for them."""
    colours: Sequence[int | None] = range(NUM_COLOURS) if part.prompts == FULL.prompts else [None]
    return [(digit, colour) for digit in range(NUM_DIGITS) for colour in colours for _ in range(part.copies)]


def measure_teacher(
    protocol: Protocol,
    teacher: ModelSpec,
    work: Path,
    *,
    guidances: Sequence[float] = GUIDANCES,
    notify: Notify = lambda line: None,
) -> MeasuredRow:
    """Measure the teacher at the guidance scale that suits it best.

    The scale is chosen by the Frechet distance on the first noise seed; the chosen one is measured on all of them.

    Args:
        protocol: How a row is measured.
        teacher: The teacher on one grid.
        work: Folder for the pictures.
        guidances: The scales to choose from.
        notify: Is told each result as a line.
    """
    fds = {}
    for scale in guidances:
        fds[scale] = distance(protocol, guided(teacher, scale), work)
        notify(f"guidance {scale:g}: FD {fds[scale]:.3f} on noise seed {protocol.noise_seeds[0]}")
    best = best_guidance(fds)
    rows: list[Row] = []
    for seed in protocol.noise_seeds:
        rows += replace(protocol, noise_seeds=(seed,)).measure(guided(teacher, best), work)
        notify(f"guidance {best:g}, noise seed {seed}: FD {rows[-1].fd:.3f}, accuracy {rows[-1].accuracy:.4f}")
    return MeasuredRow(mean_row(rows), tuple(rows), fds)


def guided(model: ModelSpec, scale: float) -> ModelSpec:
    """The model with another guidance scale."""
    return model.model_copy(update={"guidance_scale": scale})


def distance(protocol: Protocol, model: ModelSpec, work: Path) -> float:
    """Frechet distance alone, on the first noise seed, by which the teacher's guidance is chosen."""
    part = replace(protocol.full, metrics=("fid",))
    return figures(model, part, protocol.noise_seeds[0], work)["fid"]


def best_guidance(fd_by_guidance: Mapping[float, float]) -> float:
    """The guidance scale with the smallest Frechet distance; the smaller scale of two equal ones."""
    return min(fd_by_guidance, key=lambda scale: (fd_by_guidance[scale], scale))
