"""Wan, text to video: latents (c, t, h, w), UniPC's clock, and a pipeline that takes no grid.

The network predicts ``velocity = noise - x0`` and takes ``1000 sigma`` as its time, in Wan 2.2 TI2V-5B once per token.
The stock sampler is a second-order UniPC; its clock is a static time shift, so a student ships with an Euler scheduler
whose own grid is the student's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.flow_match import scheduler_with_own_grid, static_shift
from fewstep.backbones.protocol import BackboneConfig
from fewstep.bounds import Frames, Pixels, Tokens
from fewstep.core.conditioning import Conditioning
from fewstep.core.flow import time_shift
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError, shown

_SIZE_OF_TI2V = {"height": 704, "width": 1280, "frames": 121}


class _WanConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for the Wan family."""

    kind: Literal["wan"] = "wan"
    height: Pixels = Field(default=480, description="pixels")
    width: Pixels = Field(default=832, description="pixels")
    frames: Frames = Field(default=81, description="of a video: one and a multiple of 4")
    max_sequence_length: Tokens = Field(default=512, ge=1, description="UMT5 tokens of a prompt")


class WanAdapter(DiffusersAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``WanPipeline``."""

    kind: ClassVar[str] = "wan"
    config_class: ClassVar[type[BackboneConfig]] = _WanConfig
    pipeline_class: ClassVar[str] = "WanPipeline"
    network_class: ClassVar[str] = "WanTransformer3DModel"
    vae_class: ClassVar[str] = "AutoencoderKLWan"
    latents_have_statistics: ClassVar[bool] = True
    block_classes: ClassVar[tuple[str, ...]] = ("WanTransformerBlock",)
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily(
        "diffusion_model.",
        renamed=(
            (r"\battn1\.", "self_attn."),
            (r"\battn2\.", "cross_attn."),
            (r"\bto_([qkv])$", r"\1"),
            (r"\bto_out\.0$", "o"),
            (r"\bffn\.net\.0\.proj$", "ffn.0"),
            (r"\bffn\.net\.2$", "ffn.2"),
        ),
        text_type="wan",
        latent="EmptyHunyuanLatentVideo",
    )
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
    config: _WanConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        _require_one_network(components["model_index"], model=config.model)
        self.frame_rate = 24 if self.time_per_token else 16
        self.shift = static_shift(self.scheduler_config, model=config.model, multistep="UniPCMultistepScheduler")

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        config = cls.config_class(kind=cls.kind, model=model, revision=revision)
        # no file tells a size: the call's defaults, and those of the card
        return config.model_copy(update=_SIZE_OF_TI2V) if _has_time_per_token(components) else config

    @property
    def time_per_token(self) -> bool:
        """Whether the network is told its time once per token, all alike where a video is made from text alone."""
        return _has_time_per_token(self.components)

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return int(vae["scale_factor_spatial"])

    @property
    def patch_size(self) -> int:
        return int(self.network_config["patch_size"][-1])  # the first is of frames

    @property
    def frames(self) -> int:
        return self.config.frames

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        channels, *size = super().latent_shape(height, width)
        together = int(self.vae_config["scale_factor_temporal"])
        return channels, self.latent_frames(self.config.frames, together=together), *size

    # The maths' side.

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        # the time stays float32 under any compute dtype, as the pipeline gives it
        time = 1000.0 * point.sigma.float()
        if self.time_per_token:
            frames, height, width = point.x_sigma.shape[2:]
            time = time.unsqueeze(1).expand(-1, frames * (height // self.patch_size) * (width // self.patch_size))
        output: Tensor = network(
            hidden_states=point.x_sigma.to(self.compute_dtype),
            timestep=time,
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            return_dict=False,
        )[0]
        return output.float()

    def to_sigma(self, level: Tensor) -> Tensor:
        return time_shift(level, self.shift)

    # The files' side.

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        # zeros behind each prompt's end take part in attention: there is no mask
        embeds, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.config.max_sequence_length
        )
        return Conditioning({"prompt_embeds": embeds})

    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        return scheduler_with_own_grid(sigmas, model=self.config.model)

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        call = super().call_kwargs(sigmas)
        del call["sigmas"]  # the pipeline takes none
        return {**call, "num_frames": self.config.frames}


def _require_one_network(index: Mapping[str, Any], *, model: str) -> None:
    """Refuse what a pipeline of this class may also be; ConfigError."""
    if index.get("boundary_ratio") is not None or (index.get("transformer_2") or [None])[0] is not None:
        raise ConfigError(
            f"{model} is a WanPipeline of two networks that take turns at boundary_ratio="
            f"{shown(index.get('boundary_ratio'))}, as Wan 2.2 A14B is, and this backbone distils one; use a model of "
            "one network, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
        )


def _has_time_per_token(components: Mapping[str, Mapping[str, Any]]) -> bool:
    return bool(components["model_index"].get("expand_timesteps"))
