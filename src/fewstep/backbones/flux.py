"""FLUX.1-dev: a guidance-distilled teacher on packed latents, and derivatives of it that have no guidance input."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.backbones import packed
from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.embedded_guidance import EmbeddedGuidanceAdapter, EmbeddedGuidanceConfig
from fewstep.backbones.packed_flow import FluxBlocksAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.core.conditioning import Conditioning, PromptTensor


class _FluxConfig(EmbeddedGuidanceConfig):
    """The ``backbone`` section of a recipe for FLUX.1-dev."""

    kind: Literal["flux"] = "flux"
    max_sequence_length: int = Field(default=512, gt=0, le=512, description="T5 tokens")


class FluxAdapter(EmbeddedGuidanceAdapter, FluxBlocksAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``FluxPipeline``."""

    kind: ClassVar[str] = "flux"
    config_class: ClassVar[type[BackboneConfig]] = _FluxConfig
    pipeline_class: ClassVar[str] = "FluxPipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "FluxTransformer2DModel"
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = {
        "text_encoder": ("text_encoders.clip_l.transformer.",),
        "text_encoder_2": ("text_encoders.t5xxl.transformer.",),
    }
    block_classes: ClassVar[tuple[str, ...]] = ("FluxTransformerBlock", "FluxSingleTransformerBlock")
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily(
        "transformer.",
        further=("norm1.linear", "norm1_context.linear", "norm.linear"),
        text_encoders=2,
        text_type="flux",
    )
    config: _FluxConfig

    # The maths' side.

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        height, width = x_sigma.shape[-2:]
        length = cond.tensors["prompt_embeds"].shape[1]
        return {
            "pooled_projections": cond.tensors["pooled_prompt_embeds"].to(self.compute_dtype),
            "guidance": self.embedded_scale(x_sigma, cond),
            "img_ids": packed.image_positions(height, width, device=x_sigma.device),
            "txt_ids": torch.zeros(length, 3, device=x_sigma.device),
        }

    # The files' side.

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, max_sequence_length=self.config.max_sequence_length
        )
        return Conditioning({"prompt_embeds": embeds, "pooled_prompt_embeds": pooled})

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        pooled = int(self.network_config["pooled_projection_dim"])
        return {**super().prompt_shapes(), "pooled_prompt_embeds": PromptTensor((pooled,))}
