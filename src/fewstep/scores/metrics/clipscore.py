"""CLIPScore: how well a picture fits its prompt, as the cosine of OpenAI's CLIP ViT-L/14."""

from typing import ClassVar, Literal

from PIL import Image

from fewstep.scores.metric import MetricCard
from fewstep.scores.metrics.clip import ClipMetric, TokenizerSettings
from fewstep.scores.networks.preprocessing import Pixels, cropped_square, cropped_square_of_floats


class ClipScoreSettings(TokenizerSettings):
    """``preprocess``: ``processor`` is the checkpoint's own; ``cdm`` is what the published CDM evaluation does."""

    tokenizer: str = "openai/clip-vit-large-patch14"
    preprocess: Literal["processor", "cdm"] = "processor"


class ClipScore(ClipMetric):
    """The cosine of picture and prompt."""

    settings_class: ClassVar[type[TokenizerSettings]] = ClipScoreSettings
    settings: ClipScoreSettings
    card: ClassVar[MetricCard] = MetricCard(
        name="clipscore",
        title="CLIPScore: agreement of picture and prompt, CLIP ViT-L/14",
        formula="cos(picture vector, prompt vector)",
        scale="-1 to 1; pictures that fit lie about 0.25 to 0.30",
        higher_is_better=True,
        preprocessing="preprocess=processor: shorter side to 224 with Pillow's bicubic filter, central square; "
        "preprocess=cdm: the same with torchvision's antialiased bilinear filter on float pixels. "
        "Prompts are cut at 77 tokens, the end token kept.",
        licence="MIT",
        comparable="Comparable with CLIP ViT-L/14 cosines; tables usually print them times 100. The published CDM "
        "evaluation is preprocess=cdm. Not comparable with the original CLIPScore, 2.5 max(cos, 0) of ViT-B/32, nor "
        "with a score of another CLIP.",
        source="openai/clip-vit-large-patch14",
    )

    def prepared(self, image: Image.Image, size: int) -> Pixels:
        if self.settings.preprocess == "cdm":
            return cropped_square_of_floats(image, size, mode="bilinear", centring="even")
        return cropped_square(image, size, centring="down")
