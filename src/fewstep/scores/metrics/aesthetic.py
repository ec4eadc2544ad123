"""LAION's aesthetic predictor v2: how much people like a picture, whatever it shows; it does not read the prompt."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewstep.bounds import Place
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file, has_file
from fewstep.scores.metric import MetricCard, MetricSettings, Picture, PromptItem
from fewstep.scores.metrics.clip import without_positions
from fewstep.scores.metrics.learned_scorer import CONFIG_FILE, LearnedScorer
from fewstep.scores.networks.linear_head import linear_stack
from fewstep.scores.networks.preprocessing import cropped_square, normalised

OWN_WEIGHTS = ("aesthetic-model.safetensors", "aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")
_HEAD = re.compile(r"(?:.*\.)?(layers\.\d+\.(?:weight|bias))")


class AestheticSettings(MetricSettings):
    """The head is the source; the CLIP that it reads is another checkpoint, unless the source has both."""

    clip: Place = Field(default="openai/clip-vit-large-patch14", description="hub id or local folder of CLIP ViT-L/14")


class Aesthetic(LearnedScorer):
    """The predicted rating of each picture."""

    settings_class: ClassVar[type[AestheticSettings]] = AestheticSettings
    settings: AestheticSettings
    reads_prompts = False
    card: ClassVar[MetricCard] = MetricCard(
        name="aesthetic",
        title="LAION aesthetic predictor v2 (sac+logos+ava1-l14-linearMSE)",
        formula="five linear layers without activations on the picture's CLIP vector of length 1",
        scale="a rating out of 10; pictures lie about 4 to 7",
        higher_is_better=True,
        preprocessing="shorter side to 224 with Pillow's bicubic filter, central square; the prompt is not read",
        licence="Apache-2.0 (the head), MIT (CLIP ViT-L/14)",
        comparable="Comparable with LAION aesthetic v2 scores; not with v1 nor with predictors on another CLIP.",
        source="ttj/sac-logos-ava1-l14-linearMSE",
    )

    def check(self, items: Sequence[PromptItem]) -> None:
        check_source(self.checkpoint, weights=OWN_WEIGHTS)
        if not self._has_clip():
            check_source(self._clip_source, others=[CONFIG_FILE])

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, weights=OWN_WEIGHTS)
        if self._has_clip():
            config = read_json(fetch_file(self.checkpoint, CONFIG_FILE))
        else:
            config = read_json(fetch_file(self._clip_source, CONFIG_FILE))
            tensors = {**read_tensors(self._clip_source, keep=_of_vision), **_head_of(tensors)}
        kept = {name: value for name, value in tensors.items() if _of_vision(name)} | _head_of(tensors)
        return StoredNetwork(_vision_config(config), without_positions(kept))

    def build(self, stored: StoredNetwork) -> nn.Module:
        return RatingNetwork(self.checkpoint, stored.config, stored.tensors)

    def run(self, network: Any, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> Float[Tensor, "b"]:
        squares = [normalised(cropped_square(image, network.image_size, centring="down")) for image in images]
        ratings: Tensor = network(torch.stack(squares).to(network.body.device))
        return ratings

    @property
    def _clip_source(self) -> Source:
        return Source(self.card.name, self.settings.clip, None, self.settings.allow_pickle, setting="clip")

    def _has_clip(self) -> bool:
        """Whether the source is head and CLIP in one: its configuration is then that of a vision tower."""
        if not has_file(self.checkpoint, CONFIG_FILE):
            return False
        config = read_json(fetch_file(self.checkpoint, CONFIG_FILE))
        return "hidden_size" in config or "vision_config" in config


class RatingNetwork(nn.Module):
    """CLIP's vision tower and five linear layers."""

    def __init__(self, source: Source, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        vision = CLIPVisionConfig.from_dict(dict(config))
        tower = {name: value for name, value in tensors.items() if _of_vision(name)}
        self.image_size = int(vision.image_size)
        self.body: Any = build_network(source, CLIPVisionModelWithProjection, vision, tower)
        self.head = linear_stack(source, tensors, prefix="layers", num_layers=5)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        """The rating of each picture."""
        seen = normalize(self.body(pixel_values=pixels).image_embeds, dim=-1)
        ratings: Tensor = self.head(seen).squeeze(-1)
        return ratings


def _of_vision(name: str) -> bool:
    return name.startswith(("vision_model.", "visual_projection."))


def _head_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's layers by their own names; repositories put different names before ``layers``."""
    outside = ((name, value) for name, value in tensors.items() if not _of_vision(name))
    return {match.group(1): value for name, value in outside if (match := _HEAD.fullmatch(name))}


def _vision_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the vision tower, from that of a whole CLIP or of the tower itself."""
    if "vision_config" not in config:
        return dict(config)
    from transformers import CLIPConfig

    whole = CLIPConfig.from_dict(dict(config))
    tower: dict[str, Any] = whole.vision_config.to_dict()
    return {**tower, "projection_dim": whole.projection_dim}
