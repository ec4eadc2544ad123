"""What the metrics over features share: the extractor, the reference, and the settings that choose them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Int
from PIL import Image
from pydantic import Field
from torch import Tensor

from fewstep.bounds import Place
from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricSettings, Picture, PromptItem
from fewstep.scores.metrics.reference import (
    Reference,
    ReferenceSource,
    Statistics,
    cached_reference,
    open_reference,
)
from fewstep.scores.networks.extractors import Extractor, ExtractorName, create_extractor


class FeatureSettings(MetricSettings):
    """Which features a metric uses; ``source`` is the extractor's checkpoint.

    Frames of one clip are no independent pictures, and each other's nearest: a set holds one frame of each clip.
    """

    frames: Literal["middle"] = Field(default="middle", description="of a clip: middle")
    extractor: ExtractorName = Field(default="inception", description="what turns a picture into features")


class ReferenceSettings(FeatureSettings):
    """And which real pictures it compares with."""

    reference: Place | None = Field(
        default=None, description="folder of real pictures, or a file of their features or statistics"
    )


class FeatureMetric(Metric):
    """A metric whose value is a function of the features of all pictures."""

    settings_class = FeatureSettings
    settings: FeatureSettings
    reads_prompts = False
    of_sets = True

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self.extractor: Extractor = create_extractor(
            self.settings.extractor,
            metric=self.card.name,
            source=settings.source,
            revision=settings.revision,
            allow_pickle=settings.allow_pickle,
        )
        self.networks = (self.extractor,)
        seen_by = self.extractor.card
        # what a class's card says of a checkpoint is of its default extractor
        self.card = replace(
            self.card, preprocessing=seen_by.preprocessing, licence=seen_by.licence, source=seen_by.source
        )

    @property
    def findings_key(self) -> str | None:
        return self.extractor.key

    def identity(self) -> dict[str, str]:
        return {"preprocessing": self.card.preprocessing}

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        rows = self.extractor.features(prepared(self, self.extractor, pictures, images))
        return [Finding(features=row) for row in rows]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = [finding.features for finding in findings if finding.features is not None]
        return self.figures(pictures, torch.stack(rows))

    @abstractmethod
    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        """What :meth:`conclude` gives, from a row of features for each picture."""


class ReferenceMetric(FeatureMetric):
    """A metric that compares the features of drawn pictures with those of real ones."""

    settings_class = ReferenceSettings
    settings: ReferenceSettings

    @property
    def min_pictures(self) -> int:
        return 2

    @cached_property
    def reference(self) -> ReferenceSource:
        """Where the real pictures are."""
        return open_reference(self.card.name, self.settings.reference, extractor=self.settings.extractor)

    def check(self, items: Sequence[PromptItem]) -> None:
        super().check(items)
        # a conversion asks about the checkpoint alone
        if items:
            self.reference.check()

    def identity(self) -> dict[str, str]:
        return {**super().identity(), "reference": self.reference.digest}

    def real(self, features: Tensor) -> Reference | Statistics:
        """The reference, as wide as the ``features`` it is compared with.

        Raises:
            ConfigError: It was made with another extractor.
        """
        reference = cached_reference(self.reference, self.extractor)
        width = len(reference.mean) if isinstance(reference, Statistics) else reference.features.shape[1]
        if width != features.shape[1]:
            raise ConfigError(
                f"The reference of {self.card.name} ({self.reference.path}) has features of {width} numbers, the "
                f"extractor {self.extractor.card.name} gives {features.shape[1]}. Make the reference with the same one."
            )
        return reference

    def every_real(self, features: Tensor) -> Reference:
        """The same with a row per picture.

        Raises:
            ConfigError: It has only a mean and a covariance.
        """
        reference = self.real(features)
        if isinstance(reference, Statistics):
            raise ConfigError(
                f"{self.card.name} needs the features of every real picture, and {self.reference.path} holds only "
                f"their mean and covariance. Give a folder of pictures, or a file of features."
            )
        return reference


def prepared(
    metric: Metric, extractor: Extractor, pictures: Sequence[Picture], images: Sequence[Image.Image]
) -> list[Tensor]:
    """Pictures as the extractor's input.

    Raises:
        MetricError: Naming the picture that the extractor cannot read.
    """
    inputs = []
    for picture, image in zip(pictures, images, strict=True):
        try:
            inputs.append(extractor.prepare(image))
        except ValueError as error:
            raise metric.cannot_score(picture, str(error)) from error
    return inputs


def prompt_numbers(pictures: Sequence[Picture]) -> Int[Tensor, "n"]:
    """The prompt of each picture as a number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(picture.item.id, len(numbers)) for picture in pictures])
