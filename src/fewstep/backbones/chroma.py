"""Chroma: FLUX.1's blocks on packed latents, a T5 alone, and real guidance instead of an embedded scale.

The pipeline hands its text mask to attention as numbers, which adds 1 to the logits of the tokens that it keeps and
masks nothing; whatever stands behind a prompt reaches the picture. The adapter does as the pipeline does, so padding is
stored like text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones import packed
from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.packed_flow import FluxBlocksAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.points import NoisyLatent


class _ChromaConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for Chroma."""

    kind: Literal["chroma"] = "chroma"
    max_sequence_length: Tokens = Field(default=512, description="T5 tokens")


class ChromaAdapter(FluxBlocksAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``ChromaPipeline``."""

    kind: ClassVar[str] = "chroma"
    config_class: ClassVar[type[BackboneConfig]] = _ChromaConfig
    pipeline_class: ClassVar[str] = "ChromaPipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "ChromaTransformer2DModel"
    block_classes: ClassVar[tuple[str, ...]] = ("ChromaTransformerBlock", "ChromaSingleTransformerBlock")
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily("transformer.", text_type="chroma")
    config: _ChromaConfig

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        height, width = x_sigma.shape[-2:]
        positions = packed.image_positions(height, width, device=x_sigma.device)
        kept = cond.tensors["prompt_weights"].to(self.compute_dtype)
        image = torch.ones(len(kept), len(positions), dtype=kept.dtype, device=kept.device)
        return {
            "img_ids": positions,
            "txt_ids": torch.zeros(kept.shape[1], 3, device=x_sigma.device),
            "attention_mask": torch.cat([kept, image], dim=1),
        }

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        checkpointed = getattr(network, "_gradient_checkpointing_func", None)
        if checkpointed is None:
            return super().velocity(network, point, cond)
        mask = self.network_inputs(point.x_sigma, cond)["attention_mask"]

        def with_mask(block: nn.Module, *inputs: Any) -> Any:
            # diffusers leaves the mask out of the single blocks that it checkpoints, and computes something else
            left_out = type(block).__name__ == "ChromaSingleTransformerBlock" and len(inputs) == 3
            return checkpointed(block, *inputs, mask) if left_out else checkpointed(block, *inputs)

        network._gradient_checkpointing_func = with_mask  # type: ignore[assignment]
        try:
            return super().velocity(network, point, cond)
        finally:
            network._gradient_checkpointing_func = checkpointed

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _, kept, *_ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.config.max_sequence_length
        )
        return Conditioning({"prompt_embeds": embeds, "prompt_weights": kept})

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        return {**super().prompt_shapes(), "prompt_weights": PromptTensor((self.num_prompt_tokens,))}
