"""Scores that are a cosine of a CLIP's vectors of picture and prompt: clipscore, pickscore, hpsv2."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from fewstep.bounds import Place
from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.open_clip_names import config_of, is_open_clip, to_transformers
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file, is_present
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, as_findings
from fewstep.scores.networks.clip import Clip
from fewstep.scores.networks.network import CONFIG_FILE
from fewstep.scores.networks.preprocessing import Pixels, cropped_square, cropped_square_of_floats, padded_square
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE


class TokenizerSettings(MetricSettings):
    """A scorer whose tokenizer may be in another repository; one beside the weights goes first."""

    tokenizer: Place = Field(description="hub id or local folder that has the tokenizer.json")


class _ClipMetric(Metric):
    """Scores from one CLIP; a subclass says how pictures are prepared and what becomes of the cosine."""

    settings_class: ClassVar[type[TokenizerSettings]]
    settings: TokenizerSettings
    network_class: ClassVar[type[Clip]] = Clip

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        tokenizer = Source(self.card.name, self.settings.tokenizer, setting="tokenizer")
        self.clip = self.network_class(self.checkpoint, tokenizer)
        self.networks = (self.clip,)

    @abstractmethod
    def prepared(self, image: Image.Image, size: int) -> Pixels:
        """A picture as a square of ``size`` in [0, 1], before CLIP's mean and deviation."""

    def value(self, cosine: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The score of a cosine; the cosine itself unless a metric says otherwise."""
        return cosine

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        seen = self.clip.of_pictures([self.prepared(image, self.clip.image_size) for image in images])
        read = self.clip.of_texts([picture.item.text for picture in pictures])
        return as_findings(self.value((seen * read).sum(-1)))


class _ClipScoreSettings(TokenizerSettings):
    """``preprocess``: ``processor`` is the checkpoint's own; ``cdm`` is what the published CDM evaluation does."""

    tokenizer: str = "openai/clip-vit-large-patch14"
    preprocess: Literal["processor", "cdm"] = "processor"


class ClipScore(_ClipMetric):
    """The cosine of picture and prompt."""

    settings_class: ClassVar[type[TokenizerSettings]] = _ClipScoreSettings
    settings: _ClipScoreSettings
    card = MetricCard(
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


class _PickScoreSettings(TokenizerSettings):
    """PickScore's repository has weights only; its tokenizer is that of the CLIP it started from."""

    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore(_ClipMetric):
    """The cosine times the checkpoint's learned scale, as its authors score."""

    settings_class: ClassVar[type[TokenizerSettings]] = _PickScoreSettings
    settings: _PickScoreSettings
    card = MetricCard(
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


class _Hpsv2Settings(TokenizerSettings):
    """``resize``: ``floats`` is the published transform under current torchvision; ``pillow`` filters 8-bit pixels."""

    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    resize: Literal["floats", "pillow"] = "floats"


class _OpenClip(Clip):
    """A CLIP in open_clip's names, or one that was converted from them; the shapes of the weights tell its size."""

    weights = ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt")
    files = ()

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, weights=self.weights)
        if is_open_clip(tensors):
            tensors = to_transformers(tensors)
            return StoredNetwork(config_of(tensors), tensors, fetch_file(self.tokenizer, TOKENIZER_FILE))
        if is_present(self.checkpoint, CONFIG_FILE):
            return super().read()
        raise CheckpointError(
            f"{self.checkpoint.name} holds no HPS v2.1: its weights have other names than open_clip's "
            "(visual.conv1.weight and so on). Give RE-N-Y/hpsv21, or the file HPS_v2.1_compressed.pt of xswu/HPSv2."
        )

    def build(self) -> nn.Module:
        from transformers import CLIPConfig, CLIPModel

        stored = self.read()
        config = CLIPConfig.from_dict(dict(stored.config))
        self.read_words(config.text_config.max_position_embeddings)
        return build_network(self.checkpoint, CLIPModel, config, stored.tensors)


class Hpsv2(_ClipMetric):
    """The cosine of picture and prompt."""

    settings_class: ClassVar[type[TokenizerSettings]] = _Hpsv2Settings
    settings: _Hpsv2Settings
    network_class = _OpenClip
    card = MetricCard(
        name="hpsv2",
        title="HPS v2.1: human preference, CLIP ViT-H/14",
        formula="cos(picture vector, prompt vector)",
        scale="about 0.2 to 0.35",
        higher_is_better=True,
        preprocessing="resize=floats: longer side to 224 with an antialiased bicubic filter on float pixels, as the "
        "published transform under current torchvision (older versions did not antialias); resize=pillow: Pillow's "
        "bicubic filter. The rest of the square is black, nothing is cropped. Prompts are cut at 77 tokens.",
        licence="Apache-2.0",
        comparable="Comparable with HPS v2.1 tables, which print it times 100; they were made in half precision, so "
        "the third decimal may differ, and their tokenizer also repairs broken Unicode. Not comparable with v2.0.",
        source="RE-N-Y/hpsv21",
    )

    def prepared(self, image: Image.Image, size: int) -> Pixels:
        return padded_square(image, size, on=self.settings.resize)
