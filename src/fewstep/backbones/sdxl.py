"""Stable Diffusion XL base: an epsilon UNet that is also told the picture's size.

Size, crop and target size are those of an uncropped picture of the configured size, which is what the pipeline says
when its call names none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.comfyui import UNET, ComfyUIFamily
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.variance_preserving import VariancePreservingAdapter
from fewstep.core.conditioning import Conditioning, PromptTensor


class _SDXLConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for SDXL."""

    kind: Literal["sdxl"] = "sdxl"


class SDXLAdapter(VariancePreservingAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``StableDiffusionXLPipeline``."""

    kind: ClassVar[str] = "sdxl"
    config_class: ClassVar[type[BackboneConfig]] = _SDXLConfig
    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    network_component: ClassVar[str] = "unet"
    network_class: ClassVar[str] = "UNet2DConditionModel"
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = {
        "text_encoder": ("conditioner.embedders.0.transformer.",),
        "text_encoder_2": ("conditioner.embedders.1.model.",),
    }
    block_classes: ClassVar[tuple[str, ...]] = ("BasicTransformerBlock", "ResnetBlock2D")
    comfyui: ClassVar[ComfyUIFamily | None] = UNET
    config: _SDXLConfig

    def predict(self, network: nn.Module, x_t: Tensor, time: Float[Tensor, "b"], cond: Conditioning) -> Tensor:
        height, width = (side * self.vae_factor(self.vae_config) for side in x_t.shape[-2:])
        time_ids = torch.tensor([height, width, 0, 0, height, width], dtype=self.compute_dtype, device=x_t.device)
        output: Tensor = network(
            x_t,
            time,
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            added_cond_kwargs={
                "text_embeds": cond.tensors["pooled_prompt_embeds"].to(self.compute_dtype),
                "time_ids": time_ids.expand(len(x_t), -1),
            },
            return_dict=False,
        )[0]
        return output

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _, pooled, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return Conditioning({"prompt_embeds": embeds, "pooled_prompt_embeds": pooled})

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        # the rest of that input are six numbers about the picture's size
        network = self.network_config
        pooled = network["projection_class_embeddings_input_dim"] - 6 * network["addition_time_embed_dim"]
        return {**super().prompt_shapes(), "pooled_prompt_embeds": PromptTensor((int(pooled),))}

    @torch.no_grad()
    def encode_null(self, pipeline: Any) -> Conditioning:
        # zeros, unless the checkpoint's model_index.json turns force_zeros_for_empty_prompt off
        _, embeds, _, pooled = pipeline.encode_prompt([""], do_classifier_free_guidance=True)
        return Conditioning({"prompt_embeds": embeds, "pooled_prompt_embeds": pooled})
