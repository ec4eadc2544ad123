"""A tiny CogVideoXPipeline, and what the conformance suite asks of it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.core import vp
from fewstep.testing import t5_encoder, t5_tokenizer
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS
from tests.backbones import tiny_vp

TOKENS = 24
BETAS = {
    **tiny_vp.SD_BETAS,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
}


def cogvideox_pipeline(*, tokens: int = TOKENS) -> Any:
    """A CogVideoXPipeline of prompts of so many tokens."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        max_text_seq_length=tokens,
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        sample_height=16,
        sample_width=16,
        scaling_factor=1.15258426,
    )
    return CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(**BETAS),
    )


def call(pipeline: Any, arguments: dict[str, Any]) -> Any:
    """The stock call, whose sampler is given time steps beside; pixels as (b, 3, f, h, w)."""
    levels = arguments.pop("sigmas", None)
    if levels is not None:
        pipeline.scheduler.set_timesteps = partial(_set_times, pipeline.scheduler, levels)
    drawn = pipeline(**arguments, return_dict=False)[0]
    return drawn.transpose(1, 2) if arguments["output_type"] == "pt" else drawn


def _set_times(scheduler: Any, levels: list[float], num_inference_steps: int, device: Any = None) -> None:
    times = [round(1000 * level) - 1 for level in levels]
    scheduler.timesteps = torch.tensor(times)
    # a step goes down by 1000 over this
    scheduler.num_inference_steps = 1000 // (times[0] - times[1])
    signal = scheduler.alphas_cumprod[times].double().sqrt()
    scheduler.sigmas = torch.cat([vp.sigma_from_signal(signal), torch.zeros(1)])


def _turned(pipeline: Any, latents: Tensor, *size: int) -> Tensor:
    """From (b, c, t, h, w) to (b, t, c, h, w), and back."""
    return latents.transpose(1, 2)


HOOKS: dict[str, Any] = {
    "stock_call": call,
    "pack": _turned,
    "unpack": _turned,
    "noise_axes": partial(_turned, None),
    "flow_state": tiny_vp.flow_state,
}
