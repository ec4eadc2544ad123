"""The Vendi score: how many different pictures a set is worth."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import FeatureMetric, FeatureSettings, prompt_numbers
from fewstep.scores.networks.extractors import DINOV2, ExtractorName


class VendiSettings(FeatureSettings):
    """The extractor that is recommended today."""

    extractor: ExtractorName = Field(default="dinov2", description="what turns a picture into features")


class VendiMetric(FeatureMetric):
    """Vendi score (Friedman and Dieng 2023) of all pictures, and of the pictures of one prompt on the mean."""

    card = MetricCard(
        name="vendi",
        title="Vendi score: effective number of different pictures",
        formula="exp(-sum_i l_i log l_i) with l the eigenvalues of K / n, K the cosine similarities of the features",
        scale="1 (all equal) to the number of pictures; vendi_per_prompt to the number of pictures of a prompt",
        higher_is_better=True,
        preprocessing=DINOV2.preprocessing,
        licence=DINOV2.licence,
        comparable="only with the same features and number of pictures; papers use Inception or AlexNet",
        source=DINOV2.source,
    )
    settings_class = VendiSettings

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        figures = {self.card.name: vendi_score(features)}
        prompts = prompt_numbers(pictures)
        if int(torch.bincount(prompts).min()) >= 2:
            scores = [vendi_score(features[prompts == number]) for number in torch.unique(prompts)]
            figures["vendi_per_prompt"] = sum(scores) / len(scores)
        return figures


def vendi_score(features: Tensor) -> float:
    """The exponential of the entropy of the similarity matrix's spectrum.

    Raises:
        ConfigError: A picture has no features but zeros, whose direction is not defined.
    """
    rows = features.double()
    norms = rows.norm(dim=1)
    if not bool((norms > 0).all()):
        raise ConfigError("vendi compares directions of features, and a picture's features are all zero.")
    rows = rows / norms[:, None]
    # the spectrum of n x n similarities is that of the d x d second moments, whichever is smaller
    gram = rows @ rows.mT if len(rows) <= rows.shape[1] else rows.mT @ rows
    spectrum = torch.linalg.eigvalsh(gram / len(rows)).clamp(min=0)
    return float(torch.special.entr(spectrum).sum().exp())
