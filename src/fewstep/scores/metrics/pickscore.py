"""PickScore: which picture people picked for a prompt, learned from Pick-a-Pic."""

from typing import ClassVar

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fewstep.scores.metric import MetricCard
from fewstep.scores.metrics.clip import ClipMetric, TokenizerSettings
from fewstep.scores.networks.preprocessing import Pixels, cropped_square


class PickScoreSettings(TokenizerSettings):
    """PickScore's repository has weights only; its tokenizer is that of the CLIP it started from."""

    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore(ClipMetric):
    """The cosine times the checkpoint's learned scale, as its authors score."""

    settings_class: ClassVar[type[TokenizerSettings]] = PickScoreSettings
    settings: PickScoreSettings
    card: ClassVar[MetricCard] = MetricCard(
        name="pickscore",
        title="PickScore v1: human choice between pictures, CLIP ViT-H/14",
        formula="exp(logit_scale) cos(picture vector, prompt vector)",
        scale="about 18 to 24",
        higher_is_better=True,
        preprocessing="shorter side to 224 with Pillow's bicubic filter, central square; prompts cut at 77 tokens",
        licence="none stated on the model's page; the code is MIT",
        comparable="Comparable with PickScores of 18 to 24 in papers. Some training code divides by 26 (about 0.8): "
        "not that. Resizing float pixels instead moves single scores by up to about 0.1.",
        source="yuvalkirstain/PickScore_v1",
    )

    def prepared(self, image: Image.Image, size: int) -> Pixels:
        return cropped_square(image, size, centring="down")

    def value(self, cosine: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        scaled: Tensor = self.clip.network.logit_scale.exp() * cosine
        return scaled
