"""Krea 2: one stream of packed latents and of text that keeps twelve layers of its encoder for every token.

Text carries no positions, so padding between a prompt and the end of its template is dropped like any other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.backbones import packed
from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.packed_flow import PackedFlowAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.ragged import cut_text, pad_text, padded_shapes
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor


class _Krea2Config(BackboneConfig):
    """The ``backbone`` section of a recipe for Krea 2."""

    kind: Literal["krea2"] = "krea2"
    max_sequence_length: Tokens = Field(default=512, ge=6, description="Qwen3-VL tokens behind the instruction")


class Krea2Adapter(PackedFlowAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``Krea2Pipeline``."""

    kind: ClassVar[str] = "krea2"
    config_class: ClassVar[type[BackboneConfig]] = _Krea2Config
    pipeline_class: ClassVar[str] = "Krea2Pipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "Krea2Transformer2DModel"
    vae_class: ClassVar[str] = "AutoencoderKLQwenImage"
    latents_have_statistics: ClassVar[bool] = True
    vae_has_frames: ClassVar[bool] = True
    block_classes: ClassVar[tuple[str, ...]] = ("Krea2TransformerBlock", "Krea2TextFusionBlock")
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily("transformer.", text_type="krea2")
    lora_targets = ("to_q", "to_k", "to_v", "to_gate", "to_out.0", "ff.gate", "ff.up", "ff.down")
    config: _Krea2Config

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return int(2 ** len(vae["temperal_downsample"]))

    @property
    def guidance(self) -> Guidance:
        return Guidance(off=0.0, offset=1.0)

    def network_time(self, sigma: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        return sigma.to(self.compute_dtype)

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        embeds, mask = cut_text(cond)
        text = torch.zeros(embeds.shape[1], 3, device=x_sigma.device)
        image = packed.image_positions(*x_sigma.shape[-2:], device=x_sigma.device)
        return {
            "encoder_hidden_states": embeds.to(self.compute_dtype),
            "encoder_attention_mask": mask,
            "position_ids": torch.cat([text, image]),
        }

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        length = self.config.max_sequence_length
        embeds, mask = pipeline.encode_prompt(list(prompts), max_sequence_length=length)
        return pad_text([row[kept] for row, kept in zip(embeds, mask.bool(), strict=True)], length)

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        layers, width = (int(self.network_config[key]) for key in ("num_text_layers", "text_hidden_dim"))
        return padded_shapes(self.config.max_sequence_length, layers, width)

    def token_limits(self, pipeline: Any) -> list[int]:
        # the end of its template takes some
        return [self.config.max_sequence_length - int(pipeline.prompt_template_encode_num_suffix_tokens)]
