"""A tiny WanPipeline, and what the conformance suite asks of it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.testing import t5_tokenizer, umt5_encoder, wan_vae
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS

STOCK_SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def wan_pipeline(**index: Any) -> Any:
    """A WanPipeline of Wan 2.1 with its stock UniPC scheduler."""
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
        vae=wan_vae(),
        text_encoder=umt5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer.eval(),
        **index,
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


def files(**network: Any) -> dict[str, dict[str, Any]]:
    """The JSON files of the published 14B model, without what tells only of their making; ``network`` changes sizes."""
    places = {"model_index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    places |= {part: f"{part}/config.json" for part in ("vae", "transformer")}
    found = {part: json.loads((PUBLISHED / place).read_text(encoding="utf-8")) for part, place in places.items()}
    kept = {part: {k: v for k, v in file.items() if k != "_diffusers_version"} for part, file in found.items()}
    kept["transformer"].update(network)
    return kept


PUBLISHED = Path(__file__).parents[1] / "published" / "Wan-AI--Wan2.1-T2V-14B-Diffusers"
SMALL = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
