"""Metrics of how different the pictures of a set are from each other: vendi, diversity."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import FeatureMetric, FeatureSettings, prompt_numbers
from fewstep.scores.networks.extractors import DINOV2, ExtractorName
from fewstep.scores.statistics.diversity import cosine_diversity, vendi_score


class VarietySettings(FeatureSettings):
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
    settings_class = VarietySettings

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        figures = {self.card.name: vendi_score(features)}
        prompts = prompt_numbers(pictures)
        if int(torch.bincount(prompts).min()) >= 2:
            scores = [vendi_score(features[prompts == number]) for number in torch.unique(prompts)]
            figures["vendi_per_prompt"] = sum(scores) / len(scores)
        return figures


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
    settings_class = VarietySettings
    min_seeds = 2

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        prompts = prompt_numbers(pictures)
        if int(torch.bincount(prompts).min()) < 2:
            raise ConfigError(
                f"{self.card.name} compares pictures of one prompt, and a prompt has a single one. "
                "Draw every prompt with at least two seeds (--seeds 2)."
            )
        return {self.card.name: cosine_diversity(features, prompts)}
