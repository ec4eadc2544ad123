"""Tiny Stable Diffusion 3 pipelines, and what every family's tiny checkpoints need."""

from pathlib import Path
from typing import Any

import torch

from fewstep.backbones.configurations import complete_components
from fewstep.testing import clip_encoder, clip_tokenizer, kl_vae, t5_encoder, t5_tokenizer
from fewstep.testing.text_encoders import WIDTH
from fewstep.testing.vaes import LATENT_CHANNELS


def sd3_pipeline(
    *, sd35: bool = True, t5: bool = True, blocks: int = 3, scheduler: dict[str, Any] | None = None
) -> Any:
    """A StableDiffusion3Pipeline of 32 channels: SD3.5-Medium's structure, whose last block differs, or plain SD3's."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        structure = {"dual_attention_layers": tuple(range(blocks - 1)), "qk_norm": "rms_norm"}
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=blocks,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=32,
            pos_embed_max_size=12,
            **(structure if sd35 else {"dual_attention_layers": ()}),
        )
        return StableDiffusion3Pipeline(
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
            vae=kl_vae(),
            text_encoder=clip_encoder(),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip_encoder(),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder() if t5 else None,
            tokenizer_3=t5_tokenizer() if t5 else None,
        )


def whole(components: dict[str, dict[str, Any]], network_class: str, vae_class: str = "AutoencoderKL") -> Any:
    """Excerpts of a checkpoint's JSON files as opening the checkpoint gives them, with every default in place."""
    classes = {"transformer": network_class, "unet": network_class, "vae": vae_class}
    named = {
        name: {"_class_name": classes[name], **config} if name in classes else config
        for name, config in components.items()
    }
    return complete_components(named, place="an excerpt")


def save(pipeline: Any, folder: Path) -> Path:
    """Write a pipeline folder as diffusers does."""
    pipeline.save_pretrained(folder)
    return folder
