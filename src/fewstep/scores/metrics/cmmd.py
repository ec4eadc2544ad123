"""CLIP maximum mean discrepancy: a distance that needs fewer pictures than FID and assumes no Gaussian."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import ReferenceMetric, ReferenceSettings
from fewstep.scores.metrics.reference import Reference, Statistics
from fewstep.scores.networks.extractors import CLIP, ExtractorName
from fewstep.scores.statistics.features import Features, checked_pair

BANDWIDTH = 10.0
SCALE = 1000.0


class CmmdSettings(ReferenceSettings):
    """The extractor of the paper is CLIP."""

    extractor: ExtractorName = Field(default="clip", description="what turns a picture into features")


class CmmdMetric(ReferenceMetric):
    """CMMD (Jayasumana 2024)."""

    card = MetricCard(
        name="cmmd",
        title="Maximum mean discrepancy of CLIP embeddings",
        formula=(
            "1000 (mean k(r, r') + mean k(g, g') - 2 mean k(r, g)) with k(a, b) = exp(-|a - b|^2 / (2 * 10^2)), over "
            "all pairs including a picture with itself, on normalised CLIP embeddings"
        ),
        scale="0 is equal; about 0.1 to 2",
        higher_is_better=False,
        preprocessing=CLIP.preprocessing,
        licence=CLIP.licence,
        comparable=(
            "with published CMMD of ViT-L/14@336 on the same reference, pictures of other shapes included; not with "
            "ports that resize without antialiasing"
        ),
        source=CLIP.source,
    )
    settings_class = CmmdSettings

    def compare(
        self, reference: Reference | Statistics, pictures: Sequence[Picture], features: Tensor
    ) -> dict[str, float]:
        return {self.card.name: mean_discrepancy(self.all_features(reference).features, features)}


def mean_discrepancy(real: Features, generated: Features) -> float:
    """Squared maximum mean discrepancy under a Gaussian kernel of width 10, times 1000.

    The biased estimate of the paper: pairs of a picture with itself count.

    Raises:
        ConfigError: A set is empty, not finite, or the two have different widths.
    """
    real, generated = checked_pair(real, generated, at_least=1)
    value = _mean_kernel(real, real) + _mean_kernel(generated, generated) - 2 * _mean_kernel(real, generated)
    return SCALE * float(value)


def _mean_kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Tensor:
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.mT
    return torch.exp(squared.clamp(min=0) / (-2 * BANDWIDTH**2)).mean()
