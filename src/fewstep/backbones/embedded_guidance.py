"""Guidance-distilled teachers, whose guidance scale is an input and which have no unconditional branch.

The direction of guidance that ``ca`` follows is therefore a choice, :data:`Direction`. Student and fake score are
asked at one embedded scale, the deployment value, because alignment averages their weights.
"""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from fewstep.backbones.guidance import Guidance
from fewstep.backbones.packed_flow import PackedFlowAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.bounds import GuidanceScale
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.section import Section

_logger = logging.getLogger(__name__)
_UNGUIDED = 1.0
"""The embedded scale that stands for no guidance."""


class _NullPrompt(Section):
    """Prompt minus empty prompt, both at embedded scale 1."""

    mode: Literal["null_prompt"] = "null_prompt"


class GuidanceEmbedding(Section):
    """The same prompt at two embedded scales, per unit of scale; the low one is the teacher's unguided prediction."""

    mode: Literal["guidance_embedding"] = "guidance_embedding"
    high: GuidanceScale = 3.5
    low: GuidanceScale = _UNGUIDED

    @model_validator(mode="after")
    def _high_is_above_low(self) -> "GuidanceEmbedding":
        if self.high <= self.low:
            raise ValueError(f"high is {self.high}, which must be above low, {self.low}")
        return self


class _NoDirection(Section):
    """No direction: ``ca`` is off, and the teacher is asked at the deployment scale."""

    mode: Literal["off"] = "off"


Direction = Annotated[_NullPrompt | GuidanceEmbedding | _NoDirection, Field(discriminator="mode")]


class EmbeddedGuidanceConfig(BackboneConfig):
    """The choices that a guidance-distilled teacher asks for."""

    guidance: GuidanceScale = Field(
        default=3.5, description="embedded scale of student and fake score, and of the exported student"
    )
    ca: Direction = Field(default=GuidanceEmbedding(), description="what stands for the direction of guidance")
    not_about_text: ClassVar[frozenset[str]] = frozenset({"guidance", "ca"})

    def without_guidance(self) -> str | None:
        if not isinstance(self.ca, _NoDirection):
            return None
        return "backbone.ca.mode is off; set backbone.ca={mode: guidance_embedding} or {mode: null_prompt}"


class EmbeddedGuidanceAdapter(PackedFlowAdapter):
    """The answers about guidance of a network that takes its scale as an input, where ``guidance_embeds`` says so.

    A network without that input, a teacher from before guidance distillation, is guided by its empty prompt, which the
    pipeline calls ``true_cfg_scale``.
    """

    config: EmbeddedGuidanceConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.embeds_guidance = bool(self.network_config["guidance_embeds"])
        if isinstance(self.config.ca, GuidanceEmbedding) and not self.embeds_guidance:
            raise ConfigError(
                f"{config.model} has no guidance embedding (guidance_embeds is false), so backbone.ca cannot use one. "
                "Set backbone.ca={mode: null_prompt}."
            )
        self._has_warned = False

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        config = super().default_config(model, revision, components)
        embeds_guidance = components["transformer"]["guidance_embeds"]
        return config if embeds_guidance else config.model_copy(update={"ca": _NullPrompt()})

    # The maths' side.

    def embedded_scale(self, x_sigma: Tensor, cond: Conditioning) -> Tensor | None:
        """The network's guidance input, one scale per sample; None where it has none."""
        if not self.embeds_guidance:
            return None
        if "guidance" in cond.tensors:
            return cond.tensors["guidance"]
        return torch.full((len(x_sigma),), self.config.guidance, device=x_sigma.device)

    def prompt_batch(self, cond: Conditioning, null_cond: Conditioning) -> PromptBatch:
        self._warn_once()
        deployed = self._at(cond, self.config.guidance)
        match self.config.ca:
            case GuidanceEmbedding(high=high, low=low):
                positive, unguided = self._at(cond, high), self._at(cond, low)
                return PromptBatch(deployed, unguided, positive, negative=unguided, contrast=1.0 / (high - low))
            case _NullPrompt():
                unguided = self._at(cond, _UNGUIDED)
                return PromptBatch(deployed, unguided, unguided, negative=self._at(null_cond, _UNGUIDED))
            case _NoDirection():
                return PromptBatch(deployed, deployed, deployed, negative=deployed)

    def guided_velocity(
        self,
        network: nn.Module,
        point: NoisyLatent,
        cond: Conditioning,
        null_cond: Conditioning,
        *,
        guidance_scale: float,
    ) -> Float[Tensor, "b *latent"]:
        """The pipeline's ``guidance_scale`` is an input of the network: one call, and no unconditional branch.

        A network without that input, a teacher from before guidance distillation, is guided by its empty prompt, which
        the pipeline calls ``true_cfg_scale``.
        """
        if not self.embeds_guidance:
            return super().guided_velocity(network, point, cond, null_cond, guidance_scale=guidance_scale)
        return self.velocity(network, point, self._at(cond, guidance_scale))

    @property
    def guidance(self) -> Guidance:
        if self.embeds_guidance:
            return Guidance(off=self.config.guidance, embedded=True)
        return Guidance(argument="true_cfg_scale", default=3.5, spelled_out=True)

    def _at(self, cond: Conditioning, guidance: float) -> Conditioning:
        """The same prompts at an embedded scale."""
        if not self.embeds_guidance:
            return cond
        embeds = cond.tensors["prompt_embeds"]
        scale = torch.full((len(embeds),), guidance, dtype=torch.float32, device=embeds.device)
        return Conditioning({**cond.tensors, "guidance": scale})

    def _warn_once(self) -> None:
        if not self._has_warned:
            _logger.warning("%s: %s", self.config.model, _unproven(self.config.ca))
        self._has_warned = True


def _unproven(direction: _NullPrompt | GuidanceEmbedding | _NoDirection) -> str:
    """What nobody has shown about a choice, in one sentence."""
    match direction:
        case GuidanceEmbedding(high=high, low=low):
            return (
                f"the direction of guidance is the difference of the embedded scales {high:g} and {low:g}; that scale "
                f"{low:g} is a faithful unguided prediction of a guidance-distilled network is an assumption."
            )
        case _NullPrompt():
            return (
                "the direction of guidance is prompt minus empty prompt at embedded scale 1; that a guidance-distilled "
                "network still predicts an unconditional velocity for the empty prompt is an assumption."
            )
        case _NoDirection():
            return (
                "no direction of guidance is used (backbone.ca.mode=off); on Stable Diffusion 3 training without ca "
                "is published to end worse, and here it may be unstable."
            )
