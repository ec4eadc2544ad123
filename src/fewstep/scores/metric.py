"""What a metric is: a card that says what its number means, a check before anything is drawn, and scores.

Two kinds. An :class:`ImageMetric` scores every picture by itself. A :class:`SetMetric` turns every picture into
features, which are kept on disk, and its values are a function of the features of all pictures.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fewstep.bounds import Batch, Name, Place
from fewstep.errors import FewstepError
from fewstep.files import UnreadableError
from fewstep.scores.pictures import read_picture


class MetricError(FewstepError, RuntimeError):
    """A metric could not score one picture; the message names the metric, the picture and the reason."""


@dataclass(frozen=True)
class PromptItem:
    """One prompt of a prompt set.

    Attributes:
        id: Name within its set, stable and fit for a file name.
        text: The prompt.
        facts: What a benchmark knows about it beyond the text (questions, expected objects), by the benchmark's own
            column names.
    """

    id: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One drawn picture on disk, and what was asked for."""

    path: Path
    item: PromptItem
    seed: int

    def image(self) -> Image.Image:
        """Read the picture as RGB.

        Raises:
            UnreadableError: The file is no such picture; says why.
        """
        return read_picture(self.path)


@dataclass(frozen=True)
class Finding:
    """A picture's score and what it rests on.

    Attributes:
        score: The metric's number for this picture.
        details: Plain JSON values for the report: the text that was read, the answers that were given.
    """

    score: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricCard:
    """What a metric's number means.

    Attributes:
        name: As typed after ``--metrics``.
        title: One line for people.
        formula: How the number is made from pictures and prompts.
        scale: Unit and usual range.
        higher_is_better: Which way is better.
        preprocessing: What happens to a picture before the network sees it.
        licence: Of the checkpoint.
        comparable: Which published numbers it may be compared with, and which not.
        source: The default checkpoint, a Hugging Face repository id; None where no checkpoint is needed.
        packages: Distributions that ``fewstep[eval]`` brings and this metric imports.
    """

    name: str
    title: str
    formula: str
    scale: str
    higher_is_better: bool
    preprocessing: str
    licence: str
    comparable: str
    source: str | None
    packages: tuple[str, ...] = ()


class MetricSettings(BaseModel):
    """What may be chosen about a metric; part of the protocol id. Metrics with choices of their own subclass it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Place | None = Field(default=None, description="checkpoint: hub id or local folder; None is the card's")
    revision: Name | None = None
    allow_pickle: bool = Field(default=False, description="read a .pt or .bin checkpoint, through weights_only")
    batch: Batch = Field(default=8, description="pictures per call; changes nothing but memory and speed")


class Metric(ABC):
    """One metric with its settings; holds no weights until :meth:`load`.

    Args:
        settings: An instance of ``settings_class``.
    """

    card: ClassVar[MetricCard]
    settings_class: ClassVar[type[MetricSettings]] = MetricSettings
    min_seeds: ClassVar[int] = 1
    """Pictures of one prompt that it needs at least."""

    def __init__(self, settings: MetricSettings) -> None:
        self.settings = settings

    @property
    def source(self) -> str | None:
        """The checkpoint that is used."""
        return self.settings.source or self.card.source

    @property
    def min_pictures(self) -> int:
        """Pictures of all prompts together that its figures need at least."""
        return 1

    @abstractmethod
    def check(self, items: Sequence[PromptItem]) -> None:
        """Find out, without loading weights, whether the metric can score these prompts.

        Raises:
            ConfigError: A package or a checkpoint is missing, with the command that fixes it, or a prompt lacks a fact.
        """

    def identity(self) -> dict[str, str]:
        """What the number depends on beyond the settings; part of the protocol id, asked for after :meth:`check`.

        The digest of reference pictures, the versions of an engine.
        """
        return {}

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Bring the networks to ``device``."""

    @abstractmethod
    def unload(self) -> None:
        """Drop the networks: the memory of an evaluation is that of one metric at a time."""


class ImageMetric(Metric):
    """A metric that scores each picture by itself."""

    @abstractmethod
    def score(self, pictures: Sequence[Picture]) -> list[float]:
        """Score up to ``settings.batch`` pictures, in their order.

        Raises:
            MetricError: Naming the picture that could not be scored; none is ever given a zero instead.
        """

    def summary(self, pictures: Sequence[Picture], scores: Sequence[float]) -> dict[str, float]:
        """The figures of the report, from the scores of all pictures; the first is the metric's own."""
        return {self.card.name: sum(scores) / len(scores)}

    def examine(self, pictures: Sequence[Picture]) -> list[Finding]:
        """Score pictures as :meth:`score` does, with what each score rests on; what the score phase calls."""
        return [Finding(score) for score in self.score(pictures)]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        """The figures of the report, from the findings of all pictures; what the score phase calls."""
        return self.summary(pictures, [finding.score for finding in findings])


class SetMetric(Metric):
    """A metric of a whole set of pictures, through features."""

    @property
    def feature_key(self) -> str:
        """Names the features (extractor, checkpoint, preprocessing): metrics with equal keys share one file of them."""
        return self.card.name

    @abstractmethod
    def features(self, pictures: Sequence[Picture]) -> Tensor:
        """Features of up to ``settings.batch`` pictures, float32 on the CPU, one row each.

        Raises:
            MetricError: Naming the picture that could not be read.
        """

    @abstractmethod
    def summary(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        """The figures of the report, from the features of all pictures; the first is the metric's own."""


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
