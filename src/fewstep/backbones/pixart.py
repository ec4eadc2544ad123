"""PixArt-Sigma: an epsilon-prediction transformer with a learned variance, which drawing does not use.

Texts that call it a flow-matching model are wrong about the released checkpoints: their scheduler has linear betas.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones import ragged
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.variance_preserving import VariancePreservingAdapter
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.errors import ConfigError


class _PixArtConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for PixArt-Sigma."""

    kind: Literal["pixart"] = "pixart"
    max_sequence_length: Tokens = Field(default=300, gt=0, description="T5 tokens of a prompt")


class PixArtAdapter(VariancePreservingAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``PixArtSigmaPipeline``.

    The transformer has no adapter methods of its own in diffusers: low-rank factors go on with ``peft`` itself.
    """

    kind: ClassVar[str] = "pixart"
    config_class: ClassVar[type[BackboneConfig]] = _PixArtConfig
    pipeline_class: ClassVar[str] = "PixArtSigmaPipeline"
    network_class: ClassVar[str] = "PixArtTransformer2DModel"
    block_classes: ClassVar[tuple[str, ...]] = ("BasicTransformerBlock",)
    config: _PixArtConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        _require_no_size_conditions(self.network_config, model=config.model)

    def predict(self, network: nn.Module, x_t: Tensor, time: Float[Tensor, "b"], cond: Conditioning) -> Tensor:
        output: Tensor = network(
            x_t,
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            encoder_attention_mask=cond.tensors["prompt_attention_mask"],
            timestep=time,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return output[:, : x_t.shape[1]]  # the rest is the learned variance

    def without_padding(self, *batches: Conditioning) -> tuple[Conditioning, ...]:
        return ragged.without_padding(*batches)

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, mask, _, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            clean_caption=False,  # cleaning needs packages that the pipeline may find on one machine and not on another
            max_sequence_length=self.config.max_sequence_length,
        )
        return Conditioning({"prompt_embeds": embeds, "prompt_attention_mask": mask})

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        mask = PromptTensor((self.num_prompt_tokens,), torch.int64)
        return {**super().prompt_shapes(), "prompt_attention_mask": mask}

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {
            **super().call_kwargs(sigmas),
            "clean_caption": False,
            "use_resolution_binning": False,  # a binned picture is drawn at another size and cropped
        }


def _require_no_size_conditions(network: Mapping[str, Any], *, model: str) -> None:
    asked = network["use_additional_conditions"]
    if asked or (asked is None and network["sample_size"] == 128):
        # left out at 1024 px it means true, and the pipeline then passes None to embedders of size and aspect ratio
        raise ConfigError(
            f"The transformer of {model} has use_additional_conditions={asked} with sample_size="
            f"{network['sample_size']}, so it expects a size and an aspect ratio that PixArt-Sigma's pipeline does "
            "not give. For a PixArt-Sigma checkpoint set use_additional_conditions to false in transformer/config.json."
        )
