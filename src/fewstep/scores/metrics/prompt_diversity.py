"""How different the pictures of one prompt are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import FeatureMetric, FeatureSettings, prompt_numbers
from fewstep.scores.networks.extractors import DINOV2, ExtractorName


class DiversitySettings(FeatureSettings):
    """The extractor that is recommended today."""

    extractor: ExtractorName = Field(default="dinov2", description="what turns a picture into features")


class PromptDiversityMetric(FeatureMetric):
    """Mean distance of two pictures of one prompt that differ in their seed."""

    card = MetricCard(
        name="diversity",
        title="Diversity within a prompt",
        formula="mean over prompts of the mean of 1 - cos(a, b) over all pairs of pictures of the prompt",
        scale="0 (a prompt always gives one picture) to about 1",
        higher_is_better=True,
        preprocessing=DINOV2.preprocessing,
        licence=DINOV2.licence,
        comparable="only with the same features and prompts; it takes the place of intra-LPIPS and has other units",
        source=DINOV2.source,
    )
    settings_class = DiversitySettings
    min_seeds = 2

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        prompts = prompt_numbers(pictures)
        if int(torch.bincount(prompts).min()) < 2:
            raise ConfigError(
                f"{self.card.name} compares pictures of one prompt, and a prompt has a single one. "
                "Draw every prompt with at least two seeds (--seeds 2)."
            )
        return {self.card.name: cosine_diversity(features, prompts)}


def cosine_diversity(features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"]) -> float:
    """Mean over prompts of the mean cosine distance of two pictures of one prompt.

    Every prompt has at least two pictures.

    Raises:
        ConfigError: A picture's features are all zero.
    """
    norms = features.double().norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise ConfigError("diversity compares directions of features, and a picture's features are all zero.")
    directions = features.double() / norms
    means = []
    for prompt in torch.unique(prompts):
        members = directions[prompts == prompt]
        upper = torch.triu_indices(len(members), len(members), offset=1)
        means.append(1 - (members @ members.mT)[upper[0], upper[1]].mean())
    return float(torch.stack(means).mean())
