"""Stable Diffusion 1.5 (epsilon) and 2.x (epsilon or v-prediction): one UNet, one CLIP, one adapter."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.comfyui import UNET, ComfyUIFamily
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.variance_preserving import VariancePreservingAdapter
from fewstep.core.conditioning import Conditioning

_NOT_LOADED: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
"""The exported folder keeps its copies; our own drawing looks at latents and pixels only."""


class _SD15Config(BackboneConfig):
    """The ``backbone`` section of a recipe for Stable Diffusion 1 and 2."""

    kind: Literal["sd15"] = "sd15"


class SD15Adapter(VariancePreservingAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``StableDiffusionPipeline``."""

    kind: ClassVar[str] = "sd15"
    config_class: ClassVar[type[BackboneConfig]] = _SD15Config
    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    network_component: ClassVar[str] = "unet"
    network_class: ClassVar[str] = "UNet2DConditionModel"
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = {
        "text_encoder": ("cond_stage_model.transformer.", "cond_stage_model.model.")
    }
    block_classes: ClassVar[tuple[str, ...]] = ("BasicTransformerBlock", "ResnetBlock2D")
    comfyui: ClassVar[ComfyUIFamily | None] = UNET
    config: _SD15Config

    def predict(self, network: nn.Module, x_t: Tensor, time: Float[Tensor, "b"], cond: Conditioning) -> Tensor:
        output: Tensor = network(
            x_t, time, encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype), return_dict=False
        )[0]
        return output

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _ = pipeline.encode_prompt(
            list(prompts), pipeline._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Conditioning({"prompt_embeds": embeds})

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        return super().load_pipeline(dtype=dtype, **{**_NOT_LOADED, **components})
