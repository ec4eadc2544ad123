"""Metrics of how different the pictures of a set are from each other: vendi, diversity, spread."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import FeatureMetric, FeatureSettings, prompt_numbers
from fewstep.scores.networks.extractors import DINOV2, ExtractorName
from fewstep.scores.statistics.diversity import cosine_diversity, vendi_score, within_prompt_diversity


class _VarietySettings(FeatureSettings):
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
    settings_class = _VarietySettings

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
        comparable="only with the same features and prompts; lpips is the older measure of it, in other units",
        source=DINOV2.source,
    )
    settings_class = _VarietySettings
    min_seeds = 2

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        prompts = prompt_numbers(pictures)
        if int(torch.bincount(prompts).min()) < 2:
            raise ConfigError(
                f"{self.card.name} compares pictures of one prompt, and a prompt has a single one. "
                "Draw every prompt with at least two seeds (--seeds 2)."
            )
        return {self.card.name: self.mean_distance(features, prompts)}

    def mean_distance(self, features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"]) -> float:
        """Of two pictures of one prompt."""
        return cosine_diversity(features, prompts)


class SpreadMetric(PromptDiversityMetric):
    """The same with the plain distance, in units of the features."""

    card = MetricCard(
        name="spread",
        title="Spread within a prompt",
        formula="mean over prompts of the mean of |a - b| over all pairs of pictures of the prompt",
        scale="units of the features; only its ratio to the same figure of real pictures says much",
        higher_is_better=True,
        preprocessing=DINOV2.preprocessing,
        licence=DINOV2.licence,
        comparable="only with the same features and prompts; over real pictures it is the diversity of `fewstep demo`",
        source=DINOV2.source,
    )

    def mean_distance(self, features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"]) -> float:
        return within_prompt_diversity(features, prompts)
