"""Small pictures on disk, the same on every machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fewstep.scores.metric import Metric, Picture, PromptItem
from fewstep.scores.registry import create_metrics

PROMPTS = ("a red handwritten three", "a blue handwritten seven", "green")


def pattern(width: int, height: int, shift: int = 0) -> Image.Image:
    """A picture with detail in every channel, from integers alone."""
    y, x, c = np.mgrid[:height, :width, :3]
    return Image.fromarray(((x * 7 + y * 13 + c * 50 + x * y * (c + 1) + shift * 31) % 256).astype(np.uint8))


def write_pictures(folder: Path, size: tuple[int, int] = (26, 20), prompts: tuple[str, ...] = PROMPTS) -> list[Picture]:
    """One picture for each prompt, not square."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, prompt in enumerate(prompts):
        path = folder / f"{number}.png"
        pattern(*size, shift=number).save(path)
        pictures.append(Picture(path, PromptItem(f"p{number}", prompt), seed=number))
    return pictures


def metric_of(name: str, **settings: Any) -> Metric:
    """A metric as it is asked for."""
    (made,) = create_metrics([name], {name: settings})
    return made


def scores_of(metric: Metric, pictures: Sequence[Picture]) -> list[float]:
    """The score of each picture."""
    return [finding.score for finding in metric.examine(pictures)]


def features_of(metric: Metric, pictures: Sequence[Picture]) -> torch.Tensor:
    """The features of each picture, a row each."""
    rows = [finding.features for finding in metric.examine(pictures)]
    return torch.stack([row for row in rows if row is not None])
