"""CogVideoX-2b, text to video: v-prediction on betas that end without signal, through the variance-preserving bridge.

The pipeline keeps latents as (t, c, h, w) and its stock sampler is DDIM, of first order: a student ships with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.variance_preserving import VariancePreservingAdapter
from fewstep.bounds import Frames, Pixels, Tokens
from fewstep.core.conditioning import Conditioning
from fewstep.errors import ConfigError, shown

_DECODED_TOGETHER = 8
"""The VAE decodes latents in pairs behind the first."""


class _CogVideoXConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for CogVideoX-2b."""

    kind: Literal["cogvideox"] = "cogvideox"
    height: Pixels = Field(default=480, description="pixels")
    width: Pixels = Field(default=720, description="pixels")
    frames: Frames = Field(default=49, description="of a video: one and a multiple of 8")
    max_sequence_length: Tokens = Field(default=226, gt=0, description="T5 tokens of a prompt, as the network has them")


class CogVideoXAdapter(VariancePreservingAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``CogVideoXPipeline``."""

    kind: ClassVar[str] = "cogvideox"
    config_class: ClassVar[type[BackboneConfig]] = _CogVideoXConfig
    pipeline_class: ClassVar[str] = "CogVideoXPipeline"
    network_class: ClassVar[str] = "CogVideoXTransformer3DModel"
    vae_class: ClassVar[str] = "AutoencoderKLCogVideoX"
    block_classes: ClassVar[tuple[str, ...]] = ("CogVideoXBlock",)
    frame_rate = 8
    config: _CogVideoXConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        if self.network_config["use_rotary_positional_embeddings"]:
            raise ConfigError(
                f"{config.model} is a CogVideoXPipeline whose network turns its positions "
                "(use_rotary_positional_embeddings), as CogVideoX-5b and 1.5 do, which this backbone does not "
                "drive; use THUDM/CogVideoX-2b."
            )

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        return cls.config_class(kind=cls.kind, model=model, revision=revision)  # the call's own defaults

    @property
    def frames(self) -> int:
        return self.config.frames

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        channels, *size = super().latent_shape(height, width)
        together = int(self.vae_config["temporal_compression_ratio"])
        frames = self.latent_frames(self.config.frames, together=together, unit=_DECODED_TOGETHER)
        return channels, frames, *size

    def predict(self, network: nn.Module, x_t: Tensor, time: Float[Tensor, "b"], cond: Conditioning) -> Tensor:
        output: Tensor = network(
            hidden_states=x_t.transpose(1, 2),
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            timestep=time,
            return_dict=False,
        )[0]
        return output.transpose(1, 2)

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.config.max_sequence_length
        )
        return Conditioning({"prompt_embeds": embeds})

    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        from diffusers import CogVideoXDDIMScheduler

        scheduler = CogVideoXDDIMScheduler.from_config(dict(self.schedule.scheduler), timestep_spacing="trailing")
        scheduler.set_timesteps(len(sigmas))
        times = self.schedule.whole_times(sigmas)
        # its step goes down by a whole number of time steps, whatever the next one is
        if self.schedule.num_steps % len(sigmas) or scheduler.timesteps.tolist() != times:
            raise ConfigError(
                f"The sampler of {self.config.model} makes even grids only, of a number of steps that divides "
                f"{self.schedule.num_steps}, and the student's time steps are {shown(times)}; make sampling.levels "
                "even, such as [1.0, 0.75, 0.5, 0.25]."
            )
        return scheduler

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        call = super().call_kwargs(sigmas)
        del call["timesteps"]  # the stock sampler takes none
        return {**call, "num_frames": self.config.frames}
