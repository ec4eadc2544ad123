"""Stable Diffusion 3: SD3-Medium, SD3.5-Medium and SD3.5-Large.

The network predicts ``velocity = noise - x0`` on unpacked latents and takes ``1000 sigma`` as its time. Dual attention
and query-key normalisation of the 3.5 models live inside the network and ask nothing of the adapter.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.configurations import pipeline_parts
from fewstep.backbones.flow_match import FlowMatchAdapter
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("net.0.proj", "net.2")


class _SD3Config(BackboneConfig):
    """The ``backbone`` section of a recipe for the SD3 family."""

    kind: Literal["sd3"] = "sd3"
    max_sequence_length: int = Field(
        default=256, ge=0, le=512, description="T5 tokens; a checkpoint without a T5 gets as many tokens of zeros"
    )


class SD3Adapter(FlowMatchAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``StableDiffusion3Pipeline``."""

    kind: ClassVar[str] = "sd3"
    config_class: ClassVar[type[BackboneConfig]] = _SD3Config
    pipeline_class: ClassVar[str] = "StableDiffusion3Pipeline"
    spaces_levels: ClassVar[bool | None] = False
    network_class: ClassVar[str] = "SD3Transformer2DModel"
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = {
        "text_encoder": ("text_encoders.clip_l.transformer.",),
        "text_encoder_2": ("text_encoders.clip_g.transformer.",),
        "text_encoder_3": ("text_encoders.t5xxl.transformer.",),
    }
    block_classes: ClassVar[tuple[str, ...]] = ("JointTransformerBlock",)
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily("transformer.", further=("norm1.linear",), text_encoders=3)
    config: _SD3Config

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.lora_targets = _lora_targets(dual_attention=bool(self.network_config["dual_attention_layers"]))
        self.never_trained = _never_trained(self.network_config)

    # The maths' side.

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        # the time stays float32 under any compute dtype: bfloat16 cannot tell 999 from 1000
        text = cond.tensors["prompt_embeds"].to(self.compute_dtype)
        output = network(
            hidden_states=point.x_sigma.to(self.compute_dtype),
            timestep=1000.0 * point.sigma.float(),
            encoder_hidden_states=text,
            joint_attention_kwargs=self._counted(network, point.x_sigma, text),
            pooled_projections=cond.tensors["pooled_prompt_embeds"].to(self.compute_dtype),
            return_dict=False,
        )[0]
        velocity: Tensor = output.float()
        return velocity

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        shape = super().latent_shape(height, width)
        unit = self.vae_factor(self.vae_config) * self.patch_size
        largest = int(self.network_config["pos_embed_max_size"]) * unit
        if max(height, width) > largest:
            raise ConfigError(
                f"{height} x {width} pixels are too large for {self.config.model}: its position table ends at "
                f"{largest} pixels a side (backbone.height, backbone.width)."
            )
        return shape

    # The files' side.

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        if not self._has_t5 and components.get("transformer", self) is None:
            components["transformer"] = _text_width_stand_in(int(self.network_config["joint_attention_dim"]))
        return super().load_pipeline(dtype=dtype, **components)

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
        )
        return Conditioning({"prompt_embeds": embeds[:, : self.num_prompt_tokens], "pooled_prompt_embeds": pooled})

    @property
    def num_prompt_tokens(self) -> int:
        """Without a T5 the tokens of zeros are equal, so one of them stands for all."""
        of_t5 = self.config.max_sequence_length
        return self.clip_tokens + (of_t5 if self._has_t5 else min(of_t5, 1))

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        pooled = int(self.network_config["pooled_projection_dim"])
        return {**super().prompt_shapes(), "pooled_prompt_embeds": PromptTensor((pooled,))}

    def load_kwargs(self) -> dict[str, Any]:
        return {} if self._has_t5 else {"text_encoder_3": None, "tokenizer_3": None}

    def token_limits(self, pipeline: Any) -> list[int]:
        return super().token_limits(pipeline) if self._has_t5 else ModelAdapter.token_limits(self, pipeline)

    def _counted(self, network: nn.Module, latents: Tensor, text: Tensor) -> dict[str, Any] | None:
        """What attention is told where the last token stands for all tokens of zeros."""
        if self._has_t5 or self.config.max_sequence_length < 2 or text.shape[1] != self.num_prompt_tokens:
            return None
        from fewstep.backbones.repeated_text import count_last

        image_tokens = math.prod(latents.shape[-2:]) // self.patch_size**2
        return count_last(network, text, copies=self.config.max_sequence_length, image_tokens=image_tokens)

    @property
    def _has_t5(self) -> bool:
        return "text_encoder_3" in pipeline_parts(self.components["model_index"])


def _lora_targets(*, dual_attention: bool) -> tuple[str, ...]:
    image_text = tuple(f"attn.{name}" for name in (*_ATTENTION, *_TEXT_ATTENTION))
    second = tuple(f"attn2.{name}" for name in _ATTENTION) if dual_attention else ()
    return image_text + second + tuple(f"{ff}.{name}" for ff in ("ff", "ff_context") for name in _FEED_FORWARD)


def _never_trained(network: Mapping[str, Any]) -> tuple[str, ...]:
    # the text stream ends in the last block: its query is computed and dropped, so its gradient is exactly zero
    last = int(network["num_layers"]) - 1
    normed = () if network.get("qk_norm") is None else ("norm_added_q",)
    return tuple(f"transformer_blocks.{last}.attn.{name}.*" for name in ("add_q_proj", *normed))


def _text_width_stand_in(joint_attention_dim: int) -> nn.Module:
    """A network without blocks for a pipeline that only encodes text.

    Without a T5 the pipeline asks its network how wide the zero tokens are.
    """
    from diffusers import SD3Transformer2DModel

    network: nn.Module = SD3Transformer2DModel(
        sample_size=1,
        patch_size=1,
        in_channels=1,
        num_layers=0,
        attention_head_dim=4,
        num_attention_heads=1,
        joint_attention_dim=joint_attention_dim,
        caption_projection_dim=4,
        pooled_projection_dim=1,
        out_channels=1,
        pos_embed_max_size=1,
        dual_attention_layers=(),
    )
    return network
