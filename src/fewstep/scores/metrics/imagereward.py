"""ImageReward: human preference for a picture given its prompt: a BLIP whose text reads the picture, and a head."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.blip_names import (
    TEXT_PREFIX,
    VISION_PREFIX,
    config_of,
    is_image_reward,
    to_transformers,
)
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_tensors
from fewstep.scores.checkpoints.source import Source, beside, fetch_file, is_present
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, as_findings
from fewstep.scores.metrics.clip import TokenizerSettings
from fewstep.scores.networks.linear_head import linear_stack
from fewstep.scores.networks.network import CONFIG_FILE, Network
from fewstep.scores.networks.preprocessing import cropped_square, normalised
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE, PromptRows

# mean and deviation of the reward over its training pictures, by its authors
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
_MAX_TOKENS = 35


class _ImageRewardSettings(TokenizerSettings):
    """ImageReward reads prompts with BERT's tokenizer."""

    tokenizer: str = "google-bert/bert-base-uncased"


class ImageReward(Metric):
    """The reward of each pair of picture and prompt."""

    settings_class: ClassVar[type[_ImageRewardSettings]] = _ImageRewardSettings
    settings: _ImageRewardSettings
    card = MetricCard(
        name="imagereward",
        title="ImageReward v1.0: human preference, BLIP ViT-L/16",
        formula=f"(head(text's first vector, having read the picture) - {REWARD_MEAN:.4f}) / {REWARD_STD:.4f}",
        scale="about -2 to 2; 0 is the average of its training pictures",
        higher_is_better=True,
        preprocessing="shorter side to 224 with Pillow's bicubic filter, central square; prompts cut at 35 tokens",
        licence="Apache-2.0",
        comparable="Comparable with ImageReward v1.0 in papers: the same weights, resize and normalisation.",
        source="RE-N-Y/ImageReward",
    )

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        tokenizer = Source(self.card.name, self.settings.tokenizer, setting="tokenizer")
        self.blip = _Blip(self.checkpoint, tokenizer)
        self.networks = (self.blip,)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        network, device = self.blip.network, self.blip.device
        squares = [normalised(cropped_square(image, network.image_size, centring="even")) for image in images]
        ids, mask = self.blip.prompts.rows([picture.item.text for picture in pictures])
        raw = network(torch.stack(squares).to(device), ids.to(device), mask.to(device))
        return as_findings((raw - REWARD_MEAN) / REWARD_STD)


class _Blip(Network):
    """A checkpoint in ImageReward's own names, or one that was converted from them."""

    weights = ("ImageReward.safetensors", "ImageReward.pt")
    prompts: PromptRows

    def __init__(self, checkpoint: Source, tokenizer: Source) -> None:
        super().__init__(checkpoint)
        self._otherwise = tokenizer

    @property
    def _tokenizer(self) -> Source:
        return beside(self.checkpoint, [TOKENIZER_FILE], self._otherwise)

    def check(self) -> None:
        check_source(self.checkpoint, weights=self.weights)
        check_source(self._tokenizer, weights=None, others=[TOKENIZER_FILE])

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, weights=self.weights)
        tokenizer = fetch_file(self._tokenizer, TOKENIZER_FILE)
        if is_image_reward(tensors):
            tensors = to_transformers(tensors)
            return StoredNetwork(config_of(tensors), tensors, tokenizer)
        if not is_present(self.checkpoint, CONFIG_FILE):
            raise CheckpointError(
                f"{self.checkpoint.name} holds no ImageReward: its weights have other names than blip.visual_encoder.* "
                "and mlp.layers.*. Give RE-N-Y/ImageReward, or the file ImageReward.pt of zai-org/ImageReward."
            )
        return StoredNetwork(self.config(), tensors, tokenizer)

    def build(self) -> nn.Module:
        stored = self.read()
        assert stored.tokenizer is not None
        self.prompts = PromptRows(stored.tokenizer, _MAX_TOKENS)
        return _RewardNetwork(self.checkpoint, stored.config, stored.tensors)


class _RewardNetwork(nn.Module):
    """BLIP's vision tower, its text tower with cross-attention to the picture, and five linear layers."""

    def __init__(self, source: Source, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        vision, text = BlipVisionConfig(**config["vision_config"]), BlipTextConfig(**config["text_config"])
        self.image_size = int(config["vision_config"]["image_size"])
        self.vision = build_network(source, BlipVisionModel, vision, _under(VISION_PREFIX, tensors))
        self.text = build_network(source, BlipTextModel, text, _under(TEXT_PREFIX, tensors), add_pooling_layer=False)
        self.head = linear_stack(source, tensors, prefix="mlp.layers", num_layers=5)

    def forward(self, pixels: Float[Tensor, "b 3 h w"], ids: Tensor, mask: Tensor) -> Float[Tensor, "b"]:
        """The head's answer for each pair, before its normalisation."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=seen.new_ones(seen.shape[:2]),
            is_decoder=False,  # every token sees the whole prompt
        )
        reward: Tensor = self.head(read.last_hidden_state[:, 0]).squeeze(-1)
        return reward


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
