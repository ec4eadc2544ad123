"""Tiny real pipelines of the families that pack their latents: FLUX and LongCat-Image."""

from typing import Any

import torch

from fewstep.testing import (
    clip_encoder,
    clip_tokenizer,
    kl_vae,
    qwen25_vl_encoder,
    qwen_tokenizer,
    stock_pack,
    stock_unpack,
    t5_encoder,
    t5_tokenizer,
)
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS

DYNAMIC_SHIFT = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""The scheduler file of FLUX.1-dev; LongCat-Image is taken to have the same."""
FLUX_DEV = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
LONGCAT = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 10,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "pooled_projection_dim": 3584,
    "axes_dims_rope": [16, 56, 56],
}


def components(pipeline_class: str, transformer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON files of a released checkpoint that its adapter reads."""
    return {
        "model_index": {"_class_name": pipeline_class},
        "scheduler": DYNAMIC_SHIFT,
        "vae": {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.3611, "shift_factor": 0.1159},
        "transformer": transformer,
    }


def flux_pipeline(*, guidance_embeds: bool = True) -> Any:
    """A FluxPipeline of 32 channels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            in_channels=4 * LATENT_CHANNELS,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 6, 6),
            guidance_embeds=guidance_embeds,
        )
        return FluxPipeline(
            transformer=transformer.eval(),
            scheduler=_scheduler(FlowMatchEulerDiscreteScheduler),
            vae=kl_vae(),
            text_encoder=clip_encoder(projection=False),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5_encoder(),
            tokenizer_2=t5_tokenizer(),
        )


def longcat_pipeline() -> Any:
    """A LongCatImagePipeline of 32 channels; its rewriting slot holds a plain tokenizer, which needs no torchvision."""
    from diffusers import FlowMatchEulerDiscreteScheduler, LongCatImagePipeline, LongCatImageTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = LongCatImageTransformer2DModel(
            in_channels=64,  # the pipeline knows 16 latent channels only
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=[4, 6, 6],
        )
        return LongCatImagePipeline(
            transformer=transformer.eval(),
            scheduler=_scheduler(FlowMatchEulerDiscreteScheduler),
            vae=kl_vae(16),
            text_encoder=qwen25_vl_encoder(),
            tokenizer=qwen_tokenizer(),
            text_processor=qwen_tokenizer(),
        )


def _scheduler(scheduler_class: Any) -> Any:
    # as if 4 tokens were few, so that a tiny picture lies inside the range of the shift, and 4,096 not far beyond it
    scheduler = {**DYNAMIC_SHIFT, "base_image_seq_len": 4, "max_image_seq_len": 512}
    return scheduler_class(**{name: value for name, value in scheduler.items() if name != "_class_name"})


LAYOUT: dict[str, Any] = {"pack": stock_pack, "unpack": stock_unpack}
"""What these families say to the conformance suite."""
