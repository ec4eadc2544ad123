"""Tiny pipelines around variance-preserving networks, and what the conformance suite asks of them."""

from typing import Any

import torch
from torch import Tensor

from fewstep.core import vp
from fewstep.testing import clip_encoder, clip_tokenizer, kl_vae, t5_encoder, t5_tokenizer
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS
from tests.backbones import tiny

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNET = {
    "sample_size": 8,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def pixart_pipeline(**network: Any) -> Any:
    """A PixArtSigmaPipeline with its stock scheduler: second-order DPM++ on linear betas."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        structure = {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": LATENT_CHANNELS,
            "out_channels": 2 * LATENT_CHANNELS,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": WIDTH,
            "use_additional_conditions": False,
        }
        return PixArtSigmaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5_encoder(),
            vae=kl_vae(scaling_factor=0.13025, shift_factor=None, quant_conv=True),
            transformer=PixArtTransformer2DModel(**{**structure, **network}).eval(),
            scheduler=DPMSolverMultistepScheduler(),
        )


def sd_pipeline(**scheduler: Any) -> Any:
    """A StableDiffusionPipeline with SD 1.5's stock scheduler, or with 2.1's prediction."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StableDiffusionPipeline(
            vae=kl_vae(scaling_factor=0.18215, shift_factor=None, quant_conv=True),
            text_encoder=clip_encoder(projection=False),
            tokenizer=clip_tokenizer(),
            unet=UNet2DConditionModel(**UNET, cross_attention_dim=16).eval(),
            scheduler=PNDMScheduler(**SD_BETAS, skip_prk_steps=True, steps_offset=1, **scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def sdxl_pipeline(*, force_zeros_for_empty_prompt: bool = True) -> Any:
    """A StableDiffusionXLPipeline with its stock scheduler: Euler with "leading" time steps."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            **UNET,
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        )
        return StableDiffusionXLPipeline(
            vae=kl_vae(scaling_factor=0.13025, shift_factor=None, quant_conv=True),
            text_encoder=clip_encoder(projection=False),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip_encoder(),
            tokenizer_2=clip_tokenizer(),
            unet=unet.eval(),
            scheduler=EulerDiscreteScheduler(**SD_BETAS, steps_offset=1, timestep_spacing="leading"),
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            add_watermarker=False,
        )


# What the conformance suite asks.


def first_order(pipeline: Any) -> None:
    """Give the stock pipeline a deterministic first-order sampler on its own betas that takes time steps."""
    from diffusers import DPMSolverMultistepScheduler

    config = pipeline.scheduler.config
    pipeline.scheduler = DPMSolverMultistepScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
        solver_order=1,
        final_sigmas_type="zero",
        steps_offset=1,
    )


def call_with_times(pipeline: Any, call: dict[str, Any]) -> Any:
    """These pipelines are told time steps: those of a uniform grid's levels, or an exported student's."""
    if "sigmas" in call:
        call["timesteps"] = [round(1000 * level) - 1 for level in call.pop("sigmas")]
    return pipeline(**call, return_dict=False)[0]


def flow_sigma(ratio: Tensor) -> Tensor:
    """The schedulers' sigma is noise over signal; ours is noise over both."""
    return ratio / (1 + ratio)


def flow_state(x_t: Tensor, sigma: Tensor) -> Tensor:
    """A state of the stock sampler in flow coordinates."""
    return x_t / vp.state_scale(sigma)


def hooks(*, tolerance: float) -> dict[str, Any]:
    """What every variance-preserving family says to the suite.

    Args:
        tolerance: A random epsilon network's first data prediction is enlarged by noise over signal: latents of tiny
            PixArt reach 600 and those of the UNets 60, so a float32 difference of 1e-6 of that is a larger number.
    """
    return {
        "other_size": (24, 16),
        "prepare": first_order,
        "stock_call": call_with_times,
        "flow_sigma": flow_sigma,
        "flow_state": flow_state,
        "tolerance": tolerance,
    }


# The JSON files of released checkpoints.

VAE_FILE = {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215}
SD_SCHEDULER_FILE = {"_class_name": "PNDMScheduler", **SD_BETAS}
FOUR_DOWN = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
FOUR_UP = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": FOUR_DOWN,
    "up_block_types": FOUR_UP,
}
SD21_UNET = {
    **SD15_UNET,
    "sample_size": 96,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
PIXART = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "interpolation_scale": 2,
    "use_additional_conditions": False,
}


def pixart_components(**network: Any) -> Any:
    return tiny.whole(pixart_files(**network), "PixArtTransformer2DModel")


def pixart_files(**network: Any) -> dict[str, dict[str, Any]]:
    return {
        "model_index": {"_class_name": "PixArtSigmaPipeline"},
        "scheduler": {
            "_class_name": "DPMSolverMultistepScheduler",
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "prediction_type": "epsilon",
        },
        "vae": {**VAE_FILE, "scaling_factor": 0.13025},
        "transformer": {**PIXART, **network},
    }


def sd_components(unet: dict[str, Any] = SD15_UNET, **scheduler: Any) -> Any:
    return tiny.whole(sd_files(unet, **scheduler), "UNet2DConditionModel")


def sd_files(unet: dict[str, Any] = SD15_UNET, **scheduler: Any) -> dict[str, dict[str, Any]]:
    return {
        "model_index": {"_class_name": "StableDiffusionPipeline"},
        "scheduler": {**SD_SCHEDULER_FILE, **scheduler},
        "vae": VAE_FILE,
        "unet": unet,
    }


def sdxl_components(**scheduler: Any) -> Any:
    return tiny.whole(sdxl_files(**scheduler), "UNet2DConditionModel")


def sdxl_files(**scheduler: Any) -> dict[str, dict[str, Any]]:
    return {
        "model_index": {"_class_name": "StableDiffusionXLPipeline"},
        "scheduler": {"_class_name": "EulerDiscreteScheduler", **SD_BETAS, "prediction_type": "epsilon", **scheduler},
        "vae": {**VAE_FILE, "scaling_factor": 0.13025},
        "unet": SDXL_UNET,
    }
