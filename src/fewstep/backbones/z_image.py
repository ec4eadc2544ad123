"""Z-Image: a network that takes lists, a clock that runs from noise to data, guidance that is counted from 0."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.flow_match import FlowMatchAdapter
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.ragged import pad_text, padded_shapes, text_rows
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.points import NoisyLatent

_TOKENS_TO_A_ROW = 32
"""The network pads image and text to a multiple of it, each with a learned token."""


class _ZImageConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for Z-Image."""

    kind: Literal["z-image"] = "z-image"
    max_sequence_length: Tokens = Field(default=512, description="Qwen3 tokens, its chat template counted")


class ZImageAdapter(FlowMatchAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``ZImagePipeline``."""

    kind: ClassVar[str] = "z-image"
    config_class: ClassVar[type[BackboneConfig]] = _ZImageConfig
    pipeline_class: ClassVar[str] = "ZImagePipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "ZImageTransformer2DModel"
    block_classes: ClassVar[tuple[str, ...]] = ("ZImageTransformerBlock",)
    comfyui: ClassVar[ComfyUIFamily | None] = ComfyUIFamily("diffusion_model.", text_type="lumina2")
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
    config: _ZImageConfig

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        sized = [self.at_size(*size) for size in config.training_sizes]
        if all(adapter.num_image_tokens % _TOKENS_TO_A_ROW == 0 for adapter in sized):
            self.never_trained = ("x_pad_token",)  # nothing is padded with it

    @property
    def patch_size(self) -> int:
        return int(self.network_config["all_patch_size"][0])

    @property
    def guidance(self) -> Guidance:
        return Guidance(off=0.0, offset=1.0)

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        # lists of (c, 1, h, w) and of texts without padding; its answer points from noise to data
        answers = network(
            list(point.x_sigma.to(self.compute_dtype).unsqueeze(2)),
            (1000 - 1000.0 * point.sigma.float()) / 1000,
            [row.to(self.compute_dtype) for row in text_rows(cond)],
            return_dict=False,
        )[0]
        return -torch.stack(answers).squeeze(2).float()

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        length = self.config.max_sequence_length
        # the pipeline writes its chat template into the list that it is given
        rows, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False, max_sequence_length=length)
        return pad_text(rows, length)

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        return padded_shapes(self.config.max_sequence_length, int(self.network_config["cap_feat_dim"]))
