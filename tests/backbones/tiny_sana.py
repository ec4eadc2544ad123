"""A tiny SanaPipeline, and what the conformance suite asks of it."""

from typing import Any

import torch

from fewstep.testing import dc_vae, gemma_encoder, gemma_tokenizer
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS
from tests.backbones import tiny

STOCK_SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def sana_pipeline(*, euler: bool = False, **network: Any) -> Any:
    """A SanaPipeline with its stock DPM++ scheduler, or with the Euler one of other conversions."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        SanaPipeline,
        SanaTransformer2DModel,
    )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        structure = {
            "patch_size": 1,
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": WIDTH,
            "caption_channels": WIDTH,
            "sample_size": 16,
        }
        transformer = SanaTransformer2DModel(**{**structure, **network})
        stock = DPMSolverMultistepScheduler(**STOCK_SCHEDULER)
        return SanaPipeline(
            tokenizer=gemma_tokenizer(),
            text_encoder=gemma_encoder(),
            vae=dc_vae(),
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else stock,
        )


def take_sigmas(pipeline: Any) -> None:
    """Give the stock pipeline a scheduler of the same clock that takes a grid."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=pipeline.scheduler.config.flow_shift)


def components(**network: Any) -> Any:
    """The configurations of a released checkpoint as opening it gives them."""
    return tiny.whole(files(**network), "SanaTransformer2DModel", "AutoencoderDC")


def files(**network: Any) -> dict[str, dict[str, Any]]:
    """Excerpts of the JSON files of a released checkpoint."""
    return {
        "model_index": {"_class_name": "SanaPipeline"},
        "scheduler": {"_class_name": "DPMSolverMultistepScheduler", **STOCK_SCHEDULER},
        "vae": {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024], "scaling_factor": 0.41407},
        "transformer": {"in_channels": 32, "out_channels": 32, "sample_size": 32, "patch_size": 1, **network},
    }


SANA_600M = {
    "num_attention_heads": 36,
    "attention_head_dim": 32,
    "num_layers": 28,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 2304,
}
SANA_1600M = {
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
}
