"""HPS v2.1: human preference for a picture given its prompt, a fine-tuned CLIP ViT-H/14 in open_clip's names."""

from typing import ClassVar, Literal

from PIL import Image
from torch import nn

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.open_clip_names import config_of, is_open_clip, to_transformers
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, read_tensors
from fewstep.scores.checkpoints.source import fetch_file, is_present
from fewstep.scores.metric import MetricCard
from fewstep.scores.metrics.clip import ClipMetric, TokenizerSettings
from fewstep.scores.networks.clip import Clip
from fewstep.scores.networks.network import CONFIG_FILE
from fewstep.scores.networks.preprocessing import Pixels, padded_square
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE


class Hpsv2Settings(TokenizerSettings):
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


class Hpsv2(ClipMetric):
    """The cosine of picture and prompt."""

    settings_class: ClassVar[type[TokenizerSettings]] = Hpsv2Settings
    settings: Hpsv2Settings
    network_class = _OpenClip
    card: ClassVar[MetricCard] = MetricCard(
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
