"""SANA 600M and 1600M, the teachers; SANA-Sprint is already distilled and refused.

The network predicts ``velocity = noise - x0`` on the latents of a DC-AE, 32 times smaller than the picture, and takes
``1000 sigma`` as its time. The stock sampler is a second-order DPM++ that takes no grid of sigmas; its clock is a
static time shift like that of the other flow models, so a student ships with the Euler scheduler instead.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones import flow_match, ragged
from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.flow import time_shift
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError


class _SanaConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for the SANA family."""

    kind: Literal["sana"] = "sana"
    max_sequence_length: Tokens = Field(default=300, ge=2, description="Gemma tokens of a prompt")
    instruction: bool = Field(
        default=True, description="put the pipeline's own instruction before each prompt, as its call does by default"
    )


class SanaAdapter(DiffusersAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``SanaPipeline``."""

    kind: ClassVar[str] = "sana"
    config_class: ClassVar[type[BackboneConfig]] = _SanaConfig
    pipeline_class: ClassVar[str] = "SanaPipeline"
    pipeline_unit: ClassVar[int] = 32
    network_class: ClassVar[str] = "SanaTransformer2DModel"
    vae_class: ClassVar[str] = "AutoencoderDC"
    default_latent_side: ClassVar[int] = 32
    block_classes: ClassVar[tuple[str, ...]] = ("SanaTransformerBlock",)
    # the two 1 x 1 convolutions are the feed-forward; the depth-wise one between them has no low-rank form
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "conv_inverted", "conv_point")
    config: _SanaConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        if self.network_config["guidance_embeds"]:
            raise ConfigError(
                f"{config.model} takes its guidance as an input of the network, as SANA-Sprint does, which is already "
                "distilled; this backbone drives the teachers, such as "
                "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers."
            )
        self.shift = flow_match.static_shift(
            self.scheduler_config, model=config.model, multistep="DPMSolverMultistepScheduler"
        )

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return int(2 ** (len(vae["encoder_block_out_channels"]) - 1))

    # The maths' side.

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        # the time stays float32 under any compute dtype: bfloat16 cannot tell 999 from 1000
        output = network(
            hidden_states=point.x_sigma.to(self.compute_dtype),
            timestep=1000.0 * point.sigma.float() * float(self.network_config["timestep_scale"]),
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            encoder_attention_mask=cond.tensors["prompt_attention_mask"],
            return_dict=False,
        )[0]
        # a network with a learned variance answers twice as many channels; the pipeline drops the second half too
        velocity: Tensor = output[:, : point.x_sigma.shape[1]].float()
        return velocity

    def without_padding(self, *batches: Conditioning) -> tuple[Conditioning, ...]:
        return ragged.without_padding(*batches)

    def to_sigma(self, level: Tensor) -> Tensor:
        return time_shift(level, self.shift)

    # The files' side.

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        # encode_prompt has no instruction by default, but the call has: it must be given
        return self._encode(pipeline, prompts, _instruction(pipeline) if self.config.instruction else None)

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        mask = PromptTensor((self.num_prompt_tokens,), torch.int64)
        return {**super().prompt_shapes(), "prompt_attention_mask": mask}

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning:
        return self._encode(pipeline, [prompt], None)  # the pipeline never puts the instruction before a negative one

    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        own = flow_match.own_grid_scheduler(sigmas, self._euler)
        return flow_match.scheduler_of_given_sigmas(self._euler) if own is None else own

    @property
    def _euler(self) -> Mapping[str, Any]:
        """The Euler scheduler's configuration, its own defaults where the family ships another."""
        stock = self.components["scheduler"]
        return stock if stock["_class_name"] == "FlowMatchEulerDiscreteScheduler" else {}

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        call = {
            **super().call_kwargs(sigmas),
            # a binned picture is drawn at another size and cropped
            "use_resolution_binning": False,
        }
        if flow_match.own_grid_scheduler(sigmas, self._euler) is not None:
            del call["sigmas"]
        return call if self.config.instruction else {**call, "complex_human_instruction": None}

    def token_limits(self, pipeline: Any) -> list[int]:
        # behind the instruction the pipeline leaves a prompt one token less
        return [self.config.max_sequence_length - int(self.config.instruction)]

    @torch.no_grad()
    def _encode(self, pipeline: Any, prompts: Sequence[str], instruction: list[str] | None) -> Conditioning:
        embeds, mask, _, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
            complex_human_instruction=instruction,
        )
        return Conditioning({"prompt_embeds": embeds, "prompt_attention_mask": mask})


def _instruction(pipeline: Any) -> list[str]:
    """What the installed pipeline's call puts before a prompt by default."""
    default = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    return list(default)
