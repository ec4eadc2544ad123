"""What a metric is: a card that says what its number means, a check before anything is drawn, and two steps to figures.

It examines pictures, a few at a time, and concludes from what it found in all of them. A finding is a picture's own
score with what it rests on, or, for a metric of whole sets, its features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from fewstep.bounds import Batch, Name, Place
from fewstep.errors import FewstepError
from fewstep.files import UnreadableError
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.networks.network import Network
from fewstep.scores.pictures import frame_paths, read_picture, three_frames
from fewstep.section import Section


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
    """One drawn picture on disk, or one frame of a drawn clip, and what was asked for.

    Attributes:
        clip: All frames of its clip in their order; empty for a picture that is none.
        frame: Which of them it is, from 0.
    """

    path: Path
    item: PromptItem
    seed: int
    clip: tuple[Path, ...] = ()
    frame: int = 0

    def image(self) -> Image.Image:
        """Read the picture as RGB.

        Raises:
            UnreadableError: The file is no such picture; says why.
        """
        return read_picture(self.path)


def frames_of(clip: Sequence[Path], item: PromptItem, seed: int) -> list[Picture]:
    """The pictures that a clip consists of."""
    clip = tuple(clip)
    return [Picture(path, item, seed, clip, number) for number, path in enumerate(clip)]


def drawn_at(path: Path, item: PromptItem, seed: int, *, frames: int | None) -> list[Picture]:
    """What a model drew for one prompt and seed: a picture, or a clip of so many frames in files named after it."""
    return [Picture(path, item, seed)] if frames is None else frames_of(frame_paths(path, frames), item, seed)


@dataclass(frozen=True)
class Finding:
    """What a metric found in one picture.

    Attributes:
        score: The picture's own number; not a number where only a set has one.
        details: Plain JSON values for the report: the text that was read, the answers that were given.
        features: What the figures of a set are made from, one float32 row on the CPU; None beside a score.
    """

    score: float = math.nan
    details: Mapping[str, Any] = field(default_factory=dict)
    features: Tensor | None = field(default=None, compare=False)

    @property
    def problem(self) -> str | None:
        """What is wrong with its numbers, or None."""
        if self.features is not None:
            return None if self.features.isfinite().all() else "its features are not finite numbers"
        return None if math.isfinite(self.score) else f"its score is {self.score}"


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


class MetricSettings(Section):
    """What may be chosen about a metric; part of the protocol id. Metrics with choices of their own subclass it."""

    source: Place | None = Field(default=None, description="checkpoint: hub id or local folder; None is the card's")
    revision: Name | None = None
    allow_pickle: bool = Field(default=False, description="read a .pt or .bin checkpoint, through weights_only")
    batch: Batch = Field(default=8, description="pictures per call; changes nothing but memory and speed")
    frames: Literal["all", "three", "middle"] = Field(
        default="all", description="of a clip: all, three (the first, the middle and the last), or middle"
    )


class Metric(ABC):
    """One metric with its settings; holds no weights until :meth:`load`.

    Args:
        settings: An instance of ``settings_class``.
    """

    card: MetricCard
    """The class's own; where a setting chooses the network, an instance tells of that network."""
    settings_class: ClassVar[type[MetricSettings]] = MetricSettings
    min_seeds: ClassVar[int] = 1
    """Pictures of one prompt that it needs at least."""
    reads_prompts: ClassVar[bool] = True
    """Whether a picture's prompt has to be known."""
    of_sets: ClassVar[bool] = False
    """Whether only a set has a figure: its findings are features, and no picture has a score."""
    compares_frames: ClassVar[bool] = False
    """Whether it needs clips, whose frames it compares."""

    def __init__(self, settings: MetricSettings) -> None:
        self.settings = settings
        self.networks: tuple[Network, ...] = ()
        """What it brings to the device; a conversion writes the first."""

    @property
    def source(self) -> str | None:
        """The checkpoint that is used."""
        return self.settings.source or self.card.source

    @property
    def checkpoint(self) -> Source:
        """Where that is, and how it may be read."""
        assert self.source is not None, f"{self.card.name} has no checkpoint"
        return Source(self.card.name, self.source, self.settings.revision, self.settings.allow_pickle)

    @property
    def min_pictures(self) -> int:
        """Pictures of all prompts together that its figures need at least."""
        return 1

    @property
    def findings_key(self) -> str | None:
        """Names its findings where other metrics have the same ones and may share them; None where they are its own."""
        return None

    def check(self, items: Sequence[PromptItem]) -> None:
        """Find out, without loading weights, whether the metric can score these prompts.

        Raises:
            ConfigError: A package or a checkpoint is missing, with the command that fixes it, or a prompt lacks a fact.
        """
        for item in items:
            self.check_prompt(item)
        for network in self.networks:
            network.check()

    def check_prompt(self, item: PromptItem) -> None:  # noqa: B027 (most metrics score any prompt)
        """Raise ConfigError for a prompt that cannot be scored."""

    def chosen(self, pictures: Sequence[Picture]) -> list[Picture]:
        """What it looks at: every picture, and of a clip the frames that its settings name."""
        return [picture for picture in pictures if not picture.clip or picture.frame in self._frames(len(picture.clip))]

    def _frames(self, count: int) -> Sequence[int]:
        which: dict[str, Sequence[int]] = {"three": three_frames(count), "middle": (count // 2,)}
        return which.get(self.settings.frames, range(count))

    def identity(self) -> dict[str, str]:
        """What the number depends on beyond the settings; part of the protocol id, asked for after :meth:`check`.

        The digest of reference pictures, the versions of an engine.
        """
        return {}

    def load(self, device: torch.device) -> None:
        """Bring the networks to ``device``."""
        for network in self.networks:
            network.load(device)

    def unload(self) -> None:
        """Drop the networks: the memory of an evaluation is that of one metric at a time."""
        for network in self.networks:
            network.unload()

    @torch.no_grad()
    def examine(self, pictures: Sequence[Picture]) -> list[Finding]:
        """Look at up to ``settings.batch`` pictures; one finding for each, in their order.

        Raises:
            MetricError: Naming the picture that could not be scored; none is ever given a zero instead.
        """
        findings = self.look(pictures, [self._image(picture) for picture in pictures])
        for picture, finding in zip(pictures, findings, strict=True):
            if finding.problem is not None:
                raise self.cannot_score(picture, finding.problem)
        return findings

    @abstractmethod
    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        """What :meth:`examine` does once the pictures are read as ``images``."""

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        """The figures of the report, from the findings of all pictures; the first is the metric's own."""
        return {self.card.name: mean_score(findings)}

    def cannot_score(self, picture: Picture, reason: str) -> MetricError:
        """The error for one picture: which metric, which picture, why."""
        return MetricError(
            f"{self.card.name} cannot score {picture.path} (prompt {picture.item.id}, seed {picture.seed}): {reason}. "
            "It was given no score; remove the file and draw the picture again, or leave the metric out."
        )

    def _image(self, picture: Picture) -> Image.Image:
        try:
            return picture.image()
        except UnreadableError as error:
            raise self.cannot_score(picture, f"the file cannot be read as a picture: {error}") from error


def mean_score(findings: Sequence[Finding]) -> float:
    """The mean of the pictures' scores."""
    return sum(finding.score for finding in findings) / len(findings)


def as_findings(scores: Tensor) -> list[Finding]:
    """One finding per score, of a row of them."""
    return [Finding(score) for score in scores.double().cpu().tolist()]
