"""A Stable Diffusion 3 folder of a chosen size with random weights, and prompts for it: what the benchmarks train."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

CLIP_WIDTH, CLIP_TOKENS = 32, 77


@dataclass(frozen=True)
class Size:
    """Of a random network.

    Attributes:
        layers, heads: Of the transformer; a head is 64 wide.
        latent_side: Largest side of a latent; a picture is eight times that.
        text_width: Of a text token.
    """

    layers: int = 4
    heads: int = 3
    latent_side: int = 16
    text_width: int = 128


def save_pipeline(folder: Path, size: Size) -> Path:
    """Write a pipeline folder: the transformer, two CLIPs and a T5 of two layers each, a small decoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from tests.backbones import tiny

    from fewstep.testing import clip_encoder, clip_tokenizer, t5_tokenizer  # needs pytest, which not all who import do

    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(size).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae().eval(),
            text_encoder=clip_encoder(CLIP_WIDTH, CLIP_TOKENS),
            tokenizer=clip_tokenizer(CLIP_TOKENS),
            text_encoder_2=clip_encoder(CLIP_WIDTH, CLIP_TOKENS),
            tokenizer_2=clip_tokenizer(CLIP_TOKENS),
            text_encoder_3=_t5(size.text_width).eval(),
            tokenizer_3=t5_tokenizer(),
        )
    return tiny.save(pipeline, folder)


def save_prompts(path: Path, count: int) -> Path:
    """Write up to 512 different prompts, one a line."""
    sizes, looks = (
        ("tiny", "small", "large", "huge"),
        ("red", "green", "blue", "white", "old", "glass", "wooden", "wet"),
    )
    things, places = ("cat", "house", "boat", "chair"), ("desk", "beach", "roof", "road")
    sentences = [f"a {a} {b} {c} on a {d}" for a, b, c, d in product(sizes, looks, things, places)]
    path.write_text("\n".join(sentences[:count]) + "\n")
    return path


def _transformer(size: Size) -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=size.latent_side,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=size.layers,
        attention_head_dim=64,
        num_attention_heads=size.heads,
        joint_attention_dim=size.text_width,
        caption_projection_dim=64 * size.heads,
        pooled_projection_dim=2 * CLIP_WIDTH,
        pos_embed_max_size=size.latent_side,
        dual_attention_layers=(),
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=128, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=2, num_heads=4)
    )
