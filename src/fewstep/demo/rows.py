"""The rows that ship with the package: real data, and the teacher at 50 and at 4 steps, each at its best guidance."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.recipe import load_recipe
from fewstep.demo.protocol import (
    NOISE_SEEDS,
    Draw,
    Judge,
    Pixels,
    Row,
    draw_with,
    full_set,
    mean_row,
    open_set,
    real_diversity,
)
from fewstep.embedded import assets
from fewstep.errors import CheckpointError
from fewstep.sampling.generate import TextToImage, load_generator
from fewstep.sampling.sampler import teacher_sigmas

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
TEACHER_STEPS = 50
NAMES = ("real", "teacher_50", "teacher_4")
Notify = Callable[[str], None]


@dataclass(frozen=True)
class MeasuredRow:
    """A row with what it was chosen from.

    Attributes:
        row: The mean over the noise seeds.
        per_seed: The row of each noise seed.
        fd_by_guidance: Frechet distance on the first noise seed, by guidance scale; empty for real data.
    """

    row: Row
    per_seed: tuple[Row, ...]
    fd_by_guidance: Mapping[float, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "row": self.row.to_json(),
            "per_noise_seed": [row.to_json() for row in self.per_seed],
            "fd_by_guidance": {f"{scale:g}": fd for scale, fd in self.fd_by_guidance.items()},
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "MeasuredRow":
        return MeasuredRow(
            row=Row.from_json(values["row"]),
            per_seed=tuple(Row.from_json(row) for row in values["per_noise_seed"]),
            fd_by_guidance={float(scale): fd for scale, fd in values["fd_by_guidance"].items()},
        )


@dataclass(frozen=True)
class ShippedRows:
    """The contents of ``rows.json``.

    Attributes:
        real_diversity: Within-prompt diversity of real pictures, to which every row's diversity is relative.
        rows: ``real``, ``teacher_50`` and ``teacher_4``.
    """

    real_diversity: float
    rows: Mapping[str, MeasuredRow]

    def write(self, path: Path) -> None:
        contents = {
            "real_diversity": self.real_diversity,
            "rows": {name: measured.to_json() for name, measured in self.rows.items()},
        }
        path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> "ShippedRows":
        """Read the rows.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            rows = {name: MeasuredRow.from_json(contents["rows"][name]) for name in NAMES}
            return ShippedRows(float(contents["real_diversity"]), rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not hold the rows of the demo's teacher ({error!r}); install fewstep again."
            ) from error


def best_guidance(fd_by_guidance: Mapping[float, float]) -> float:
    """The guidance scale with the smallest Frechet distance; the smaller scale of two equal ones."""
    return min(fd_by_guidance, key=lambda scale: (fd_by_guidance[scale], scale))


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
        fds[scale] = judge.fd(pictures[scale])
        notify(f"guidance {scale:g}: FD {fds[scale]:.3f} on noise seed {first}")
    best = best_guidance(fds)
    draw = draw_at(best)
    rows = []
    for seed in noise_seeds:
        full = pictures[best] if seed == first else draw(judge.full.prompts, judge.full.seeds(seed))
        rows.append(judge.measure(full, draw(judge.open.prompts, judge.open.seeds(seed)), guidance=best))
        notify(f"guidance {best:g}, noise seed {seed}: FD {rows[-1].fd:.3f}, accuracy {rows[-1].accuracy:.4f}")
    return MeasuredRow(mean_row(rows), tuple(rows), fds)


def load_judge(folder: Path | None = None, *, diversity: float | None = None) -> Judge:
    """Load what rows are measured against from the assets.

    Args:
        folder: The assets; those of the package when None.
        diversity: Within-prompt diversity of real pictures; measured anew when None.
    """
    classifier = assets.load_classifier(folder)
    free = open_set()
    if diversity is None:
        diversity = real_diversity(classifier, assets.load_held_out(folder), free)
    return Judge(classifier, assets.load_reference(folder), diversity, full_set(), free)


def load_teacher(folder: Path | None = None) -> TextToImage:
    """Load the embedded teacher; always on the CPU, where the shipped rows were measured."""
    return load_generator(assets.load_teacher_folder(folder), "cpu")


def student_sigmas(adapter: ModelAdapter) -> Float[Tensor, "k"]:
    """The grid of the demo's student, on which the teacher is compared with it."""
    return adapter.to_sigma(torch.tensor(load_recipe("digits").config.sampling.levels))


def measure_rows(folder: Path | None = None, *, notify: Notify = print) -> ShippedRows:
    """Measure real data and the teacher at 50 steps and on the student's grid.

    Args:
        folder: The assets; those of the package when None.
        notify: Is told each result as a line.
    """
    judge = load_judge(folder)
    teacher = load_teacher(folder)
    real, per_seed = judge.measure_real(assets.load_held_out(folder))
    notify(f"real: FD {real.fd:.3f}, accuracy {real.accuracy:.4f}")
    rows = {"real": MeasuredRow(real, per_seed, {})}
    for sigmas in (student_sigmas(teacher.adapter), teacher_sigmas(teacher.adapter, TEACHER_STEPS)):
        name = f"teacher_{len(sigmas)}"
        draw_at = partial(_draw_at, teacher, sigmas)
        rows[name] = measure_teacher(judge, draw_at, notify=partial(_named, notify, name))
    return ShippedRows(judge.real_diversity, rows)


def _draw_at(teacher: TextToImage, sigmas: Tensor, scale: float) -> Draw:
    return draw_with(teacher, sigmas=sigmas, guidance_scale=scale)


def _named(notify: Notify, name: str, line: str) -> None:
    notify(f"{name}: {line}")


def compute_rows(folder: Path, *, threads: int | None = None, progress: Notify = print) -> None:
    """Measure the rows of the assets in ``folder`` and write them there as ``rows.json``.

    Args:
        folder: The assets, with a manifest of everything but the rows.
        threads: Threads of the arithmetic; None leaves them as they are.
        progress: Is told each result as a line.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    measure_rows(folder, notify=progress).write(folder / assets.ROWS_FILE)


def read_rows(folder: Path | None = None) -> ShippedRows:
    """Check and read the rows that ship with the teacher."""
    return ShippedRows.read(assets.check_files(folder, under=assets.ROWS_FILE))
