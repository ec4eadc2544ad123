"""The backbones that the conformance suite runs over: one line per tiny pipeline, one per real configuration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from torch import Tensor

from tests.backbones import tiny


def sd3_encode(pipeline: Any, prompts: list[str], call: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The stock pipeline's embeddings, in the order of our conditioning: of the prompts, of the unconditional branch."""
    embeds = pipeline.encode_prompt(prompts, None, None, do_classifier_free_guidance=True, **call)
    return list(embeds[0::2]), list(embeds[1::2])


@dataclass(frozen=True)
class Family:
    """A tiny real pipeline of one family.

    Attributes:
        build: Makes the pipeline.
        config: Fields of the backbone config beside the model and its own size.
        size: Height and width of the default pictures, in pixels.
        other_size: Another size, not square.
        call: Arguments of the stock call that the config's fields stand for.
        encode: Asks the stock pipeline for its embeddings.
        prepare: Changes the stock pipeline before it is compared, where its own scheduler takes no grid.
    """

    kind: str
    build: Callable[[], Any]
    config: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (16, 16)
    other_size: tuple[int, int] = (24, 12)
    call: dict[str, Any] = field(default_factory=dict)
    encode: Callable[[Any, list[str], dict[str, Any]], tuple[list[Tensor], list[Tensor]]] = sd3_encode
    prepare: Callable[[Any], None] = lambda pipeline: None


FAMILIES: dict[str, Family] = {
    "sd35": Family("sd3", tiny.sd3_pipeline, {"max_sequence_length": 24}, call={"max_sequence_length": 24}),
    "sd3": Family("sd3", lambda: tiny.sd3_pipeline(sd35=False)),
    "sd3-without-t5": Family(
        "sd3", lambda: tiny.sd3_pipeline(t5=False), {"max_sequence_length": 1}, call={"max_sequence_length": 1}
    ),
    "sd3-stored-in-fp16": Family("sd3", lambda: tiny.sd3_pipeline(sd35=False).to(torch.float16)),
    "sd3-dynamic-shift": Family(
        "sd3", lambda: tiny.sd3_pipeline(scheduler={"use_dynamic_shifting": True, "base_image_seq_len": 4})
    ),
}


@dataclass(frozen=True)
class RealConfiguration:
    """A released checkpoint's network, built on the meta device.

    Attributes:
        components: The JSON files that the adapter reads.
        num_parameters: From the fact sheet.
    """

    kind: str
    network_class: str
    components: dict[str, dict[str, Any]]
    num_parameters: int


def _sd3_components(**network: Any) -> dict[str, dict[str, Any]]:
    common = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 2048,
    }
    return {
        "model_index": {
            "_class_name": "StableDiffusion3Pipeline",
            "text_encoder_3": ["transformers", "T5EncoderModel"],
        },
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        "vae": {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 1.5305, "shift_factor": 0.0609},
        "transformer": {**common, **network},
    }


SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
REAL_CONFIGURATIONS: dict[str, RealConfiguration] = {
    "sd3-medium": RealConfiguration(
        "sd3", "SD3Transformer2DModel", _sd3_components(**SD3_MEDIUM, dual_attention_layers=[]), 2_028_328_000
    ),
    "sd35-medium": RealConfiguration(
        "sd3",
        "SD3Transformer2DModel",
        _sd3_components(
            **{**SD3_MEDIUM, "pos_embed_max_size": 384},
            dual_attention_layers=list(range(13)),
            qk_norm="rms_norm",
        ),
        2_243_171_520,
    ),
    "sd35-large": RealConfiguration(
        "sd3",
        "SD3Transformer2DModel",
        _sd3_components(
            num_layers=38,
            num_attention_heads=38,
            caption_projection_dim=2432,
            pos_embed_max_size=192,
            dual_attention_layers=[],
            qk_norm="rms_norm",
        ),
        8_056_627_520,
    ),
}
