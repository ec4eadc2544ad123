"""FLUX.2: klein base, teachers with an empty prompt to guide from, and dev, whose guidance scale is an input.

Latents are those that the network sees: 2 x 2 patches of the VAE's as channels, normalised by the running statistics of
the VAE's batch norm. The shift of the clock depends on the number of steps.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.embedded_guidance import (
    Direction,
    EmbeddedGuidanceAdapter,
    EmbeddedGuidanceConfig,
    GuidanceEmbedding,
)
from fewstep.backbones.packed_flow import ATTENTION, PackedFlowAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.source import loading, locate
from fewstep.backbones.using import quiet_imports
from fewstep.bounds import GuidanceScale, Tokens
from fewstep.core.conditioning import Conditioning

_FOUR_STEPS = "Flux2KleinKVPipeline"
"""Of text alone it draws as the family's own, in four steps where it is told no number, and without guidance."""


class _Flux2KleinConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for FLUX.2 klein base."""

    kind: Literal["flux2-klein"] = "flux2-klein"
    max_sequence_length: Tokens = Field(default=512, description="Qwen3 tokens, its chat template counted")


class Flux2KleinAdapter(PackedFlowAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``Flux2KleinPipeline``."""

    kind: ClassVar[str] = "flux2-klein"
    config_class: ClassVar[type[BackboneConfig]] = _Flux2KleinConfig
    pipeline_class: ClassVar[str] = "Flux2KleinPipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "Flux2Transformer2DModel"
    vae_class: ClassVar[str] = "AutoencoderKLFlux2"
    default_latent_side: ClassVar[int] = 64
    block_classes: ClassVar[tuple[str, ...]] = ("Flux2TransformerBlock", "Flux2SingleTransformerBlock")
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily(
        "transformer.", text_type="flux2", latent="EmptyFlux2LatentImage"
    )
    patch: ClassVar[int] = 1
    student_pipelines: ClassVar[frozenset[str]] = frozenset({_FOUR_STEPS})
    config: _Flux2KleinConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        # a single block's output has the name of the other blocks' container, so each is named in full
        single = range(int(self.network_config["num_single_layers"]))
        outputs = (f"single_transformer_blocks.{block}.attn.to_out" for block in single)
        self.lora_targets = (*ATTENTION, "linear_in", "linear_out", "to_qkv_mlp_proj", *outputs)

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return super().vae_factor(vae) * int(vae["patch_size"][0])

    def dynamic_mu(self, num_steps: int) -> float:
        with quiet_imports():
            from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return float(compute_empirical_mu(self.num_image_tokens, num_steps))

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        def positions(rows: int, columns: int, tokens: int) -> Tensor:
            axes = [torch.arange(count, device=x_sigma.device) for count in (1, rows, columns, tokens)]
            return torch.cartesian_prod(*axes).expand(len(x_sigma), -1, -1)

        height, width = x_sigma.shape[-2:]
        return {
            "guidance": None,
            "img_ids": positions(height, width, 1),
            "txt_ids": positions(1, 1, cond.tensors["prompt_embeds"].shape[1]),
        }

    def index_holds(self, sigmas: Sequence[float]) -> frozenset[str]:
        return frozenset({"guidance_scale", *(("num_inference_steps",) if self._four_steps(sigmas) else ())})

    def student_index(self, sigmas: Sequence[float]) -> Mapping[str, Any]:
        # the pipeline guides no model that says so of itself, whatever the scale of a call
        index = {**super().student_index(sigmas), "is_distilled": True}
        return {**index, "_class_name": _FOUR_STEPS} if self._four_steps(sigmas) else index

    def _four_steps(self, sigmas: Sequence[float]) -> bool:
        return len(sigmas) == 4 and self._scheduler_with_grid(sigmas) is not None

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, _ = pipeline.encode_prompt(list(prompts), max_sequence_length=self.config.max_sequence_length)
        return Conditioning({"prompt_embeds": embeds})

    def _vae_latents(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *vae"]:
        statistics: Any = vae.bn
        mean, variance = (value.float().view(-1, 1, 1) for value in (statistics.running_mean, statistics.running_var))
        patches = x0 * (variance + self.vae_config["batch_norm_eps"]).sqrt() + mean
        return functional.pixel_shuffle(patches, int(self.vae_config["patch_size"][0]))


class _Flux2DevConfig(EmbeddedGuidanceConfig):
    """The ``backbone`` section of a recipe for FLUX.2-dev."""

    kind: Literal["flux2"] = "flux2"
    guidance: GuidanceScale = Field(
        default=4.0, description="embedded scale of student and fake score, and of the exported student"
    )
    ca: Direction = Field(default=GuidanceEmbedding(high=4.0), description="what stands for the direction of guidance")
    max_sequence_length: Tokens = Field(default=512, description="Mistral tokens, its chat template counted")


class Flux2DevAdapter(EmbeddedGuidanceAdapter, Flux2KleinAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``Flux2Pipeline``."""

    kind: ClassVar[str] = "flux2"
    config_class: ClassVar[type[BackboneConfig]] = _Flux2DevConfig
    pipeline_class: ClassVar[str] = "Flux2Pipeline"
    student_pipelines: ClassVar[frozenset[str]] = frozenset()
    config: _Flux2DevConfig  # type: ignore[assignment]

    def index_holds(self, sigmas: Sequence[float]) -> frozenset[str]:
        return frozenset()

    def student_index(self, sigmas: Sequence[float]) -> Mapping[str, Any]:
        return PackedFlowAdapter.student_index(self, sigmas)

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        return {**super().network_inputs(x_sigma, cond), "guidance": self.embedded_scale(x_sigma, cond)}

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        if find_spec("torchvision") is not None or "tokenizer" in components:
            return super().load_pipeline(dtype=dtype, **components)
        # the checkpoint's processor needs torchvision for pictures; for text its tokenizer does the same
        pipeline = super().load_pipeline(dtype=dtype, tokenizer=None, **components)
        with (
            quiet_imports(),
            loading(self.config.origin, self.config.revision, f"the tokenizer of {self.config.model}"),
        ):
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(
                locate(self.config.origin), revision=self.config.revision, subfolder="tokenizer"
            )
        pipeline.register_modules(tokenizer=tokenizer)
        return pipeline
