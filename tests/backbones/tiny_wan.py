"""A tiny WanPipeline, and what the conformance suite asks of it."""

from functools import partial
from typing import Any

from fewstep.testing import t5_tokenizer, umt5_encoder, wan_vae
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS

WAN21, WAN22 = "Wan-AI--Wan2.1-T2V-14B-Diffusers", "Wan-AI--Wan2.2-TI2V-5B-Diffusers"
SMALL = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
STOCK_SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def wan_pipeline(*, ti2v: bool = False) -> Any:
    """A WanPipeline of Wan 2.1, or of Wan 2.2 TI2V-5B, with its stock UniPC scheduler."""
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return WanPipeline(
        scheduler=UniPCMultistepScheduler(**STOCK_SCHEDULER),
        vae=wan_vae(residual=ti2v),
        text_encoder=umt5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer.eval(),
        expand_timesteps=ti2v,
    )


def call(pipeline: Any, arguments: dict[str, Any]) -> Any:
    """The stock call, which takes no grid: the scheduler is given it beside; pixels as (b, 3, f, h, w)."""
    levels = arguments.pop("sigmas", None)
    if levels is not None:
        pipeline.scheduler.set_timesteps = partial(_set_levels, pipeline.scheduler, levels)
    drawn = pipeline(**arguments, return_dict=False)[0]
    return drawn.transpose(1, 2) if arguments["output_type"] == "pt" else drawn


def _set_levels(scheduler: Any, levels: list[float], num_inference_steps: int, device: Any = None) -> None:
    type(scheduler).set_timesteps(scheduler, sigmas=levels, device=device)
