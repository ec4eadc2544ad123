"""What the metrics over features share: the extractor, the reference, and the settings that choose them."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Int
from PIL import Image
from pydantic import Field
from torch import Tensor

from fewstep.bounds import Place
from fewstep.errors import ConfigError
from fewstep.scores.checkpoints.reading import Convertible, StoredNetwork
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
    """Which features a metric uses; ``source`` is the extractor's checkpoint."""

    extractor: ExtractorName = Field(default="inception", description="what turns a picture into features")


class ReferenceSettings(FeatureSettings):
    """And which real pictures it compares with."""

    reference: Place | None = Field(
        default=None, description="folder of real pictures, or a file of their features or statistics"
    )


class FeatureMetric(Metric, Convertible):
    """A metric whose value is a function of the features of all pictures."""

    settings_class = FeatureSettings
    reads_prompts = False
    of_sets = True

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._chosen = cast(FeatureSettings, settings)
        self.extractor: Extractor = create_extractor(
            self._chosen.extractor,
            metric=self.card.name,
            source=settings.source,
            revision=settings.revision,
            allow_pickle=settings.allow_pickle,
        )
        self._device = torch.device("cpu")

    @property
    def source(self) -> str | None:
        return self.settings.source or self.extractor.card.source

    @property
    def findings_key(self) -> str | None:
        return self.extractor.key

    def check(self, items: Sequence[PromptItem]) -> None:
        self.extractor.check()

    def identity(self) -> dict[str, str]:
        return {"preprocessing": self.extractor.card.preprocessing}

    def read(self) -> StoredNetwork:
        return self.extractor.read()

    def load(self, device: torch.device) -> None:
        self._device = device
        self.extractor.load(device)

    def unload(self) -> None:
        self.extractor.unload()

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        prepared = []
        for picture, image in zip(pictures, images, strict=True):
            try:
                prepared.append(self.extractor.prepare(image))
            except ValueError as error:
                raise self.cannot_score(picture, str(error)) from error
        return [Finding(features=row) for row in self.extractor.features(prepared)]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = [finding.features for finding in findings if finding.features is not None]
        return self.figures(pictures, torch.stack(rows))

    @abstractmethod
    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        """What :meth:`conclude` gives, from a row of features for each picture."""


class ReferenceMetric(FeatureMetric):
    """A metric that compares the features of drawn pictures with those of real ones."""

    settings_class = ReferenceSettings

    @property
    def min_pictures(self) -> int:
        return 2

    @cached_property
    def reference(self) -> ReferenceSource:
        """Where the real pictures are."""
        chosen = cast(ReferenceSettings, self.settings)
        return open_reference(self.card.name, chosen.reference, extractor=chosen.extractor)

    def check(self, items: Sequence[PromptItem]) -> None:
        super().check(items)
        # a conversion asks about the checkpoint alone
        if items:
            self.reference.check()

    def identity(self) -> dict[str, str]:
        return {**super().identity(), "reference": self.reference.digest}

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        was_loaded = self.extractor.is_loaded
        try:
            reference = cached_reference(self.reference, self.extractor, self._loaded_extractor)
        finally:
            if not was_loaded:
                self.extractor.unload()
        width = len(reference.mean) if isinstance(reference, Statistics) else reference.features.shape[1]
        if width != features.shape[1]:
            raise ConfigError(
                f"The reference of {self.card.name} ({self.reference.path}) has features of {width} numbers, the "
                f"extractor {self.extractor.card.name} gives {features.shape[1]}. Make the reference with the same one."
            )
        return self.compare(reference, pictures, features)

    @abstractmethod
    def compare(
        self, reference: Reference | Statistics, pictures: Sequence[Picture], features: Tensor
    ) -> dict[str, float]:
        """The figures of the report."""

    def all_features(self, reference: Reference | Statistics) -> Reference:
        """The reference with a row per picture.

        Raises:
            ConfigError: It has only a mean and a covariance.
        """
        if isinstance(reference, Statistics):
            raise ConfigError(
                f"{self.card.name} needs the features of every real picture, and {self.reference.path} holds only "
                f"their mean and covariance. Give a folder of pictures, or a file of features."
            )
        return reference

    def _loaded_extractor(self) -> Extractor:
        if not self.extractor.is_loaded:
            self.extractor.load(self._device)
        return self.extractor


def prompt_numbers(pictures: Sequence[Picture]) -> Int[Tensor, "n"]:
    """The prompt of each picture as a number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(picture.item.id, len(numbers)) for picture in pictures])
