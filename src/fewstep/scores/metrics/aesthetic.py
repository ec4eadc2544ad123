"""LAION's aesthetic predictor v2: how much people like a picture, whatever it shows; it does not read the prompt."""

import re
from collections.abc import Sequence
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
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, as_findings
from fewstep.scores.networks.extractors import NOT_VISION, vision_config
from fewstep.scores.networks.linear_head import linear_stack
from fewstep.scores.networks.network import CONFIG_FILE, Network
from fewstep.scores.networks.preprocessing import cropped_square, normalised

_HEAD = re.compile(r"(?:.*\.)?(layers\.\d+\.(?:weight|bias))")


class _AestheticSettings(MetricSettings):
    """The head is the source; the CLIP that it reads is another checkpoint, unless the source has both."""

    clip: Place = Field(default="openai/clip-vit-large-patch14", description="hub id or local folder of CLIP ViT-L/14")


class Aesthetic(Metric):
    """The predicted rating of each picture."""

    settings_class: ClassVar[type[_AestheticSettings]] = _AestheticSettings
    settings: _AestheticSettings
    reads_prompts = False
    card = MetricCard(
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

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        clip = Source(self.card.name, self.settings.clip, None, self.settings.allow_pickle, setting="clip")
        self.rater = _Rater(self.checkpoint, clip)
        self.networks = (self.rater,)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        size = self.rater.network.image_size
        squares = [normalised(cropped_square(image, size, centring="down")) for image in images]
        return as_findings(self.rater.network(torch.stack(squares).to(self.rater.device)))


class _Rater(Network):
    """The head, and the CLIP that it reads; a converted folder has both."""

    weights = ("aesthetic-model.safetensors", "aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")

    def __init__(self, checkpoint: Source, clip: Source) -> None:
        super().__init__(checkpoint)
        self._clip = clip

    def check(self) -> None:
        check_source(self.checkpoint, weights=self.weights)
        if not self._has_clip():
            check_source(self._clip, others=[CONFIG_FILE])

    def read(self) -> StoredNetwork:
        tower = self._own_tower() if self._has_clip() else read_tensors(self._clip, keep=_of_vision)
        return StoredNetwork(self._vision_config().to_dict(), tower | self._head())

    def build(self) -> nn.Module:
        from transformers import CLIPVisionModelWithProjection

        tower = self._own_tower() if self._has_clip() else None
        body = build_network(self._body, CLIPVisionModelWithProjection, self._vision_config(), tower, others=NOT_VISION)
        return _RatingNetwork(body, linear_stack(self.checkpoint, self._head(), prefix="layers", num_layers=5))

    @property
    def _body(self) -> Source:
        return self.checkpoint if self._has_clip() else self._clip

    def _has_clip(self) -> bool:
        """Whether the source is head and CLIP in one: its configuration is then that of a vision tower."""
        if not has_file(self.checkpoint, CONFIG_FILE):
            return False
        config = self.config()
        return "hidden_size" in config or "vision_config" in config

    def _vision_config(self) -> Any:
        return vision_config(read_json(fetch_file(self._body, CONFIG_FILE)))

    def _own_tower(self) -> dict[str, Tensor]:
        return read_tensors(self.checkpoint, weights=self.weights, keep=_of_vision)

    def _head(self) -> dict[str, Tensor]:
        """The head's layers by their own names; repositories put different names before ``layers``."""
        outside = read_tensors(self.checkpoint, weights=self.weights, keep=lambda name: not _of_vision(name))
        return {match.group(1): value for name, value in outside.items() if (match := _HEAD.fullmatch(name))}


class _RatingNetwork(nn.Module):
    """CLIP's vision tower and five linear layers."""

    def __init__(self, body: Any, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.image_size = int(body.config.image_size)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        """The rating of each picture."""
        seen = normalize(self.body(pixel_values=pixels).image_embeds, dim=-1)
        ratings: Tensor = self.head(seen).squeeze(-1)
        return ratings


def _of_vision(name: str) -> bool:
    return name.startswith(("vision_model.", "visual_projection."))
