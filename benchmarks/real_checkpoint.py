"""A checkpoint of a released model's real configuration with random weights, in the files that the hub would give.

Networks and autoencoder are as large as the released ones and saved in shards; text encoders have the released width,
which decides the shapes of embeddings, and one layer.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.on_device import TINY
from fewstep.backbones.using import quiet_imports
from fewstep.planning.meta_networks import shipped
from fewstep.testing.text_encoders import clip_encoder
from fewstep.testing.tokenizers import clip_tokenizer, gemma_tokenizer
from fewstep.testing.vaes import dc_vae, kl_vae

_SHARD = "500MB"
_EFFICIENT = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
_SCALES = ((), (), (), (5,), (5,), (5,))
_DC_AE = {
    "encoder_block_types": _EFFICIENT,
    "decoder_block_types": _EFFICIENT,
    "encoder_qkv_multiscales": _SCALES,
    "decoder_qkv_multiscales": _SCALES,
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
}
_KL_AE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_TINY_LATENTS = {"in_channels": 4, "out_channels": 4, "sample_size": 32}
MODELS: Mapping[str, str] = {
    "sana-600m": "Efficient-Large-Model/Sana_600M_1024px_diffusers",
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
}
"""Recipes, and the released checkpoints whose configurations are taken."""


def make_checkpoint(recipe: str, folder: Path, *, tiny: bool) -> dict[str, int]:
    """Write a checkpoint, and tell how many parameters each part has.

    Args:
        recipe: One of :data:`MODELS`.
        folder: A new one.
        tiny: A network and an autoencoder of a test's size instead.
    """
    components = shipped(MODELS[recipe])
    assert components is not None
    torch.manual_seed(0)
    pipeline = {"sana-600m": _sana, "sd3-medium": _sd3}[recipe](components, tiny)
    counted = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in pipeline.components.items()
        if isinstance(part, nn.Module)
    }
    pipeline.save_pretrained(folder, max_shard_size=_SHARD)
    return counted


def _sana(components: Mapping[str, Any], tiny: bool) -> Any:
    with quiet_imports():
        import diffusers
        from transformers import Gemma2Config, Gemma2Model
    width = TINY["sana"]["caption_channels"] if tiny else components["transformer"]["caption_channels"]
    text = Gemma2Config(
        vocab_size=262,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return diffusers.SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=Gemma2Model(text).eval(),
        vae=dc_vae() if tiny else _made(diffusers.AutoencoderDC, components["vae"], _DC_AE),
        transformer=_made(
            diffusers.SanaTransformer2DModel,
            components["transformer"],
            {**TINY["sana"], **_TINY_LATENTS} if tiny else {},
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler.from_config(_plain(components["scheduler"])),
    )


def _sd3(components: Mapping[str, Any], tiny: bool) -> Any:
    with quiet_imports():
        import diffusers
    first, second = (16, 16) if tiny else (768, 1280)
    changes = {**TINY["sd3"], "pooled_projection_dim": 32, "pos_embed_max_size": 32, **_TINY_LATENTS} if tiny else {}
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clip_tokenizer(77),
        text_encoder=clip_encoder(first, 77),
        tokenizer_2=clip_tokenizer(77),
        text_encoder_2=clip_encoder(second, 77),
        tokenizer_3=None,
        text_encoder_3=None,
        vae=kl_vae() if tiny else _made(diffusers.AutoencoderKL, components["vae"], _KL_AE),
        transformer=_made(diffusers.SD3Transformer2DModel, components["transformer"], changes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_config(_plain(components["scheduler"])),
    )


def _made(network: Callable[..., Any], config: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    made = network.from_config({**_plain(config), **changes})  # type: ignore[attr-defined]
    return made.to(torch.bfloat16).eval()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data, as a file holds it."""
    values: dict[str, Any] = json.loads(json.dumps(dict(config)))
    return values
