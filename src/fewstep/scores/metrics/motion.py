"""Metrics of how a clip goes on from frame to frame: flicker, consistency.

Two dimensions of VBench (Huang et al. 2024, arXiv 2311.17982), in our words. Both are 1 for a clip that stands still.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture
from fewstep.scores.metrics.feature_metric import FeatureMetric, FeatureSettings
from fewstep.scores.networks.extractors import DINOV2, ExtractorName

_WHITE = 255


class _FlickerSettings(MetricSettings):
    """Neighbours are next to each other: every frame is looked at."""

    frames: Literal["all"] = Field(default="all", description="of a clip: all")


class FlickerMetric(Metric):
    """How alike neighbouring frames are, pixel by pixel; the finding of a frame compares it with the one before."""

    card = MetricCard(
        name="flicker",
        title="Temporal flickering of VBench: how alike neighbouring frames are",
        formula="1 - |a - b| / 255 in bytes, mean over pixels, pairs of neighbouring frames and clips",
        scale="0 to 1, which is a clip that stands still",
        higher_is_better=True,
        preprocessing="none",
        licence="none needed",
        comparable="with temporal_flickering of VBench on the same frames; its tables are of prompts of still scenes, "
        "and leave out clips in which RAFT sees motion. Of other prompts, motion counts as flicker: a student above "
        "its teacher may just move less",
        source=None,
    )
    settings_class = _FlickerSettings
    reads_prompts = False
    compares_frames = True

    def chosen(self, pictures: Sequence[Picture]) -> list[Picture]:
        return [picture for picture in pictures if picture.frame]

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        at_hand = {picture.path: image for picture, image in zip(pictures, images, strict=True)}
        findings = []
        for picture, image in zip(pictures, images, strict=True):
            before = replace(picture, path=picture.clip[picture.frame - 1], frame=picture.frame - 1)
            other = at_hand.get(before.path) or self._image(before)
            if other.size != image.size:
                sizes = [f"{one.width} x {one.height}" for one in (image, other)]
                raise self.cannot_score(picture, f"it has {sizes[0]} pixels, and the frame before it {sizes[1]}")
            apart = np.abs(np.asarray(image, dtype=np.int16) - np.asarray(other, dtype=np.int16))
            findings.append(Finding(1 - float(apart.mean()) / _WHITE))
        return findings


class _ConsistencySettings(FeatureSettings):
    """The extractor that is recommended today."""

    extractor: ExtractorName = Field(default="dinov2", description="what turns a picture into features")
    # it looks at clips, other metrics of features at sets
    frames: Literal["all"] = Field(default="all", description="of a clip: all")  # type: ignore[assignment]


class ConsistencyMetric(FeatureMetric):
    """How alike the features of a clip's frames stay."""

    card = MetricCard(
        name="consistency",
        title="Consistency of VBench: how alike the features of a clip's frames stay",
        formula=(
            "mean over clips and frames after the first of (max(0, cos(f, first)) + max(0, cos(f, the one before))) / 2"
        ),
        scale="0 to 1, which is a clip that stands still",
        higher_is_better=True,
        preprocessing=DINOV2.preprocessing,
        licence=DINOV2.licence,
        comparable="only with the same features; the formula is that of VBench's subject_consistency, whose features "
        "are DINO's, and background_consistency, whose are those of CLIP ViT-B/32",
        source=DINOV2.source,
    )
    settings_class = _ConsistencySettings
    compares_frames = True

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        rows = functional.normalize(features.double(), dim=1)
        later = torch.tensor([position for position, picture in enumerate(pictures) if picture.frame])
        first = later - torch.tensor([picture.frame for picture in pictures if picture.frame])
        others = torch.cat([first, later - 1])
        cosines = (rows[later.repeat(2)] * rows[others]).sum(1)
        return {self.card.name: float(cosines.clamp(min=0).mean())}
