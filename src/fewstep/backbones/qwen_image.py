"""Qwen-Image and Qwen-Image-2512: packed latents, a video VAE, and guidance that keeps each token's length."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.backbones import packed
from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.packed_flow import ATTENTION, PackedFlowAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.ragged import cut_text, pad_text, padded_shapes
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor


class _QwenImageConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for Qwen-Image."""

    kind: Literal["qwen-image"] = "qwen-image"
    max_sequence_length: Tokens = Field(default=512, description="Qwen2.5-VL tokens behind the pipeline's instruction")


class QwenImageAdapter(PackedFlowAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``QwenImagePipeline``."""

    kind: ClassVar[str] = "qwen-image"
    config_class: ClassVar[type[BackboneConfig]] = _QwenImageConfig
    pipeline_class: ClassVar[str] = "QwenImagePipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "QwenImageTransformer2DModel"
    vae_class: ClassVar[str] = "AutoencoderKLQwenImage"
    latents_have_statistics: ClassVar[bool] = True
    vae_has_frames: ClassVar[bool] = True
    block_classes: ClassVar[tuple[str, ...]] = ("QwenImageTransformerBlock",)
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily("transformer.", text_type="qwen_image")
    lora_targets = (
        *ATTENTION,
        *(f"{stream}_mlp.net.{layer}" for stream in ("img", "txt") for layer in ("0.proj", "2")),
    )
    config: _QwenImageConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        # the text stream ends in the last block
        last = f"transformer_blocks.{int(self.network_config['num_layers']) - 1}"
        ends = ("attn.add_q_proj.*", "attn.norm_added_q.*", "attn.to_add_out.*", "txt_mlp.*")
        self.never_trained = tuple(f"{last}.{end}" for end in ends)

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return int(2 ** len(vae["temperal_downsample"]))

    @property
    def guidance(self) -> Guidance:
        lengths = partial(packed.limit_token_norms, floor=0.0, ceiling=math.inf)
        return Guidance(argument="true_cfg_scale", null_prompt=" ", spelled_out=True, renormalise=lengths)

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        height, width = (side // self.patch for side in x_sigma.shape[-2:])
        embeds, mask = cut_text(cond)
        return {
            "encoder_hidden_states": embeds.to(self.compute_dtype),
            "encoder_hidden_states_mask": None if mask is None else mask.long(),
            "img_shapes": [[(1, height, width)]] * len(x_sigma),
        }

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        length = self.config.max_sequence_length
        embeds, mask = pipeline.encode_prompt(list(prompts), max_sequence_length=length)
        lengths = [embeds.shape[1]] * len(embeds) if mask is None else mask.sum(1).tolist()
        return pad_text([row[:count] for row, count in zip(embeds, lengths, strict=True)], length)

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        return padded_shapes(self.config.max_sequence_length, int(self.network_config["joint_attention_dim"]))
