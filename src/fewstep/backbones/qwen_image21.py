"""Qwen-Image-2.1: one causal stream of text and picture, unpatched latents of a VAE with alpha, guidance inside it.

The network puts a picture behind the longest text of a batch, where its positions are other ones than alone, so it is
asked about one prompt at a time.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.guidance import Guidance
from fewstep.backbones.packed_flow import PackedFlowAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.ragged import pad_text, padded_shapes, text_rows
from fewstep.backbones.source import loading, locate
from fewstep.backbones.using import quiet_imports
from fewstep.bounds import Tokens
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.points import NoisyLatent

_TEMPLATE_TOKENS = 8
"""Around a prompt, behind the instruction that is dropped."""
_LATENTS_TO_A_SLOT = 4
"""The network's mask counts 2 x 2 latents as one token of its text encoder."""


class _QwenImage21Config(BackboneConfig):
    """The ``backbone`` section of a recipe for Qwen-Image-2.1."""

    kind: Literal["qwen-image-2.1"] = "qwen-image-2.1"
    max_tokens: Tokens = Field(
        default=512,
        ge=_TEMPLATE_TOKENS + 1,
        description="Qwen3-VL tokens behind the instruction that are kept; the pipeline itself keeps all",
    )
    guided: ClassVar[bool] = False

    def without_guidance(self) -> str | None:
        return (
            "Qwen-Image-2.1 was distilled together with its guidance; take a teacher that was not, such as "
            "Qwen/Qwen-Image"
        )


class QwenImage21Adapter(PackedFlowAdapter):
    """The questions of :class:`ModelAdapter`, answered for ``QwenImage21Pipeline``."""

    kind: ClassVar[str] = "qwen-image-2.1"
    config_class: ClassVar[type[BackboneConfig]] = _QwenImage21Config
    pipeline_class: ClassVar[str] = "QwenImage21Pipeline"
    network_class: ClassVar[str] = "QwenImage21Transformer2DModel"
    vae_class: ClassVar[str] = "AutoencoderKLQwenImage21"
    latents_have_statistics: ClassVar[bool] = True
    vae_has_frames: ClassVar[bool] = True
    default_latent_side: ClassVar[int] = 64
    pipeline_unit: ClassVar[int] = 32
    patch: ClassVar[int] = 1
    block_classes: ClassVar[tuple[str, ...]] = ("QwenImage21TransformerBlock",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out")
    config: _QwenImage21Config

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        return int(2 ** len(vae["temperal_downsample"]))

    @property
    def guidance(self) -> Guidance:
        return Guidance(argument="true_cfg_scale", null_prompt=" ", spelled_out=True)

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        answers = []
        for place, row in enumerate(text_rows(cond)):
            alone = NoisyLatent(point.x_sigma[place, None], point.sigma[place, None])
            answers.append(super().velocity(network, alone, Conditioning({"prompt_embeds": row[None]})))
        return torch.cat(answers)

    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        height, width = x_sigma.shape[-2:]
        num_slots = height * width // _LATENTS_TO_A_SLOT
        # the network reads the values of its mask, so a plan on the meta device has them too
        device = "cpu" if x_sigma.is_meta else x_sigma.device
        num_text_tokens = cond.tensors["prompt_embeds"].shape[1]
        slots = torch.arange(num_text_tokens + num_slots, device=device)
        return {"img_shapes": [[(1, height, width)]], "img_mask": (slots >= num_text_tokens)[None]}

    @torch.no_grad()
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        embeds, mask, _ = pipeline.encode_prompt(list(prompts))
        lengths = [embeds.shape[1]] * len(embeds) if mask is None else mask.sum(1).tolist()
        rows = [row[:count] for row, count in zip(embeds, lengths, strict=True)]
        return pad_text(rows, self.config.max_tokens)

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        return padded_shapes(self.config.max_tokens, int(self.network_config["context_in_dim"]))

    @torch.no_grad()
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 *size"]:
        return super().decode(vae, x0)[:, :3]  # the fourth is how opaque a pixel is

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        if find_spec("torchvision") is None and "processor" not in components:
            # the checkpoint's own needs torchvision for pictures; for text its tokenizer does the same
            with (
                quiet_imports(),
                loading(self.config.origin, self.config.revision, f"the tokenizer of {self.config.model}"),
            ):
                from transformers import AutoTokenizer

                tokenizer = AutoTokenizer.from_pretrained(
                    locate(self.config.origin), revision=self.config.revision, subfolder="processor"
                )
            components["processor"] = _text_processor(tokenizer)
        return super().load_pipeline(dtype=dtype, **components)

    def index_holds(self, sigmas: Sequence[float]) -> frozenset[str]:
        return frozenset({"num_inference_steps", "sigmas"})

    def student_index(self, sigmas: Sequence[float]) -> Mapping[str, Any]:
        # the pipeline's own grid: a call that states no steps draws as the student was trained
        return {**super().student_index(sigmas), "sample_sigmas": [float(sigma) for sigma in sigmas]}

    def get_tokenizers(self, pipeline: Any) -> list[Any]:
        return [pipeline.processor.tokenizer]

    def token_limits(self, pipeline: Any) -> list[int]:
        return [self.config.max_tokens - _TEMPLATE_TOKENS]


def _text_processor(tokenizer: Any) -> Any:
    """A processor that reads text and nothing else."""
    from transformers import ProcessorMixin

    class TextProcessor(ProcessorMixin):  # type: ignore[misc]
        text_kwargs: ClassVar[Any] = {"return_token_type_ids": False}

        def __init__(self, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token = "<|image_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            super().__init__(tokenizer, chat_template=chat_template)

    return TextProcessor(tokenizer, chat_template=tokenizer.chat_template)
