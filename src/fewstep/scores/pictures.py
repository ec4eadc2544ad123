"""Pictures on their way into a metric and scores on their way out; what goes wrong names the picture."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from fewstep.files import UnreadableError
from fewstep.scores.protocol import MetricError, Picture


def read_images(metric: str, pictures: Sequence[Picture]) -> list[Image.Image]:
    """Read pictures as RGB.

    Raises:
        MetricError: Naming the picture that cannot be read.
    """
    return [_read(metric, picture) for picture in pictures]


def _read(metric: str, picture: Picture) -> Image.Image:
    try:
        return picture.image()
    except UnreadableError as error:
        raise cannot_score(metric, picture, f"the file cannot be read as a picture: {error}") from error


def checked_scores(metric: str, pictures: Sequence[Picture], scores: Tensor) -> list[float]:
    """One score per picture as a list.

    Raises:
        MetricError: Naming the first picture whose score is not a finite number.
    """
    assert scores.shape == (len(pictures),)
    values: list[float] = scores.double().cpu().tolist()
    finite = torch.isfinite(scores).cpu().tolist()
    for picture, value, good in zip(pictures, values, finite, strict=True):
        if not good:
            raise cannot_score(metric, picture, f"its score is {value}")
    return values


def cannot_score(metric: str, picture: Picture, reason: str) -> MetricError:
    """The error for one picture: which metric, which picture, why."""
    return MetricError(
        f"{metric} cannot score {picture.path} (prompt {picture.item.id}, seed {picture.seed}): {reason}. "
        "It was given no score; remove the file and draw the picture again, or leave the metric out."
    )
