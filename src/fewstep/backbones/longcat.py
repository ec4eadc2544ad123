"""LongCat-Image: packed latents like FLUX's, one Qwen2.5-VL text encoder, guidance that may be renormalised per token.

Renormalisation belongs to pictures of the teacher alone; the training terms use the plain branches. Prompts are taken
as they are: the pipeline's rewriting by its language model is off in training, in evaluation and in the stock call.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fewstep.backbones import packed
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.packed_flow import FluxBlocksAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.using import quiet_imports
from fewstep.core.conditioning import Conditioning
from fewstep.section import Section

_TEXT_TOKENS = 512
"""Every prompt is padded to as many; the image's positions begin after them."""
_IMAGE_MODALITY = 1


class _TokenRenormalisation(Section):
    """A guided token is never longer than the conditional one; how far it may be shrunk."""

    floor: float = Field(default=0.0, ge=0, le=1, description="the pipeline's cfg_renorm_min; 1 changes nothing")


class _LongCatConfig(BackboneConfig):
    """The ``backbone`` section of a recipe for LongCat-Image."""

    kind: Literal["longcat"] = "longcat"
    renormalise: _TokenRenormalisation | None = Field(
        default=_TokenRenormalisation(), description="of guided pictures of the teacher; null is plain guidance"
    )
    not_about_text: ClassVar[frozenset[str]] = frozenset({"renormalise"})


class LongCatAdapter(FluxBlocksAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``LongCatImagePipeline``."""

    kind: ClassVar[str] = "longcat"
    config_class: ClassVar[type[BackboneConfig]] = _LongCatConfig
    pipeline_class: ClassVar[str] = "LongCatImagePipeline"
    spaces_levels: ClassVar[bool | None] = True
    network_class: ClassVar[str] = "LongCatImageTransformer2DModel"
    block_classes: ClassVar[tuple[str, ...]] = ("LongCatImageTransformerBlock", "LongCatImageSingleTransformerBlock")
    config: _LongCatConfig

    # The maths' side.

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        height, width = x_sigma.shape[-2:]
        device = x_sigma.device
        index = torch.arange(cond.tensors["prompt_embeds"].shape[1], dtype=torch.float32, device=device)
        return {
            "txt_ids": torch.stack([torch.zeros_like(index), index, index], dim=1),
            "img_ids": packed.image_positions(
                height, width, modality=_IMAGE_MODALITY, start=_TEXT_TOKENS, device=device
            ),
        }

    @property
    def guidance(self) -> Guidance:
        if self.config.renormalise is None:
            return Guidance()
        return Guidance(renormalise=partial(packed.limit_token_norms, floor=self.config.renormalise.floor))

    # The files' side.

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        # the pipeline's own encoding: it takes text in quotation marks letter by letter
        embeds, _ = pipeline.encode_prompt(list(prompts), 1)
        return Conditioning({"prompt_embeds": embeds})

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {**super().call_kwargs(sigmas), "enable_prompt_rewrite": False}

    def load_kwargs(self) -> dict[str, Any]:
        # only prompt rewriting uses it, and it cannot be loaded without torchvision
        return {"text_processor": None}

    @property
    def num_prompt_tokens(self) -> int:
        return _TEXT_TOKENS

    def token_limits(self, pipeline: Any) -> list[int]:
        return [_TEXT_TOKENS]

    def count_tokens(self, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        # text in quotation marks takes its tokens letter by letter
        with quiet_imports():
            from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation

        pieces = [
            [piece for text, quoted in split_quotation(prompt) for piece in (text if quoted else [text])]
            for prompt in prompts
        ]
        flat = [piece for prompt in pieces for piece in prompt]
        lengths = iter(super().count_tokens(tokenizer, flat) if flat else [])  # an empty prompt has no pieces
        return [sum(next(lengths) for _ in prompt) for prompt in pieces]
