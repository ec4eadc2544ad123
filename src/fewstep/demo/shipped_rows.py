"""The rows that ship with the package: real data, and the teacher at 50 and at 4 steps, each at its best guidance."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.recipe import load_recipe
from fewstep.demo.protocol import Row
from fewstep.embedded import assets
from fewstep.embedded.digits.task import Digits
from fewstep.errors import CheckpointError
from fewstep.files import load_json
from fewstep.sampling.loaded import TextToImage, load_model

TEACHER_STEPS = 50
NAMES = ("real", "teacher_50", "teacher_4")


@dataclass(frozen=True)
class MeasuredRow:
    """A row with what it was chosen from.

    Attributes:
        row: The mean over the noise seeds.
        per_noise_seed: The row of each noise seed.
        fd_by_guidance: Frechet distance on the first noise seed, by guidance scale; empty for real data.
    """

    row: Row
    per_noise_seed: tuple[Row, ...]
    fd_by_guidance: Mapping[float, float]


@dataclass(frozen=True)
class ShippedRows:
    """The contents of ``rows.json``.

    Attributes:
        real_diversity: Within-prompt diversity of real pictures, to which every row's diversity is relative.
        rows: One for each of ``NAMES``.
    """

    real_diversity: float
    rows: Mapping[str, MeasuredRow]


def read_rows() -> ShippedRows:
    """Check and read the rows that ship.

    Raises:
        CheckpointError: The file is missing or damaged, or lacks a row.
    """
    path = assets.check_files(assets.DIGITS, under=assets.ROWS_FILE)
    stored = load_json(path, ShippedRows, cure=assets.REMEDY)
    absent = [name for name in NAMES if name not in stored.rows]
    if absent:
        raise CheckpointError(f"{path} lacks the row {absent[0]}. {assets.REMEDY}.")
    return ShippedRows(stored.real_diversity, {name: stored.rows[name] for name in NAMES})


def load_teacher() -> TextToImage:
    """Load the embedded teacher; always on the CPU, where the shipped rows were measured."""
    return load_model(Digits().teacher_folder(), "cpu")


def student_sigmas(adapter: ModelAdapter) -> Float[Tensor, "k"]:
    """The grid of the demo's student, on which the teacher is compared with it."""
    return adapter.to_sigma(torch.tensor(load_recipe("digits").config.sampling.levels))
