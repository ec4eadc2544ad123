"""Tiny twins of published checkpoints: their own JSON files with sizes overridden, real classes, random weights.

Nothing else of a file changes: what it leaves out, what no class takes any more and what it is named stay as published.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewstep.testing import (
    clip_tokenizer,
    gemma_encoder,
    gemma_tokenizer,
    mistral_encoder,
    qwen3_encoder,
    qwen3_vl_encoder,
    qwen25_vl_encoder,
    qwen_tokenizer,
    t5_encoder,
    t5_tokenizer,
)
from fewstep.testing.text_encoders import WIDTH

PUBLISHED = Path(__file__).parent / "published"

SIZES: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "AutoencoderDC": {
        "latent_channels": 4,
        "attention_head_dim": 2,
        **{f"{side}_block_out_channels": [8] * 6 for side in ("encoder", "decoder")},
        **{f"{side}_layers_per_block": [1] * 6 for side in ("encoder", "decoder")},
    },
    "SD3Transformer2DModel": {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "caption_projection_dim": 16,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": 32,
        "sample_size": 8,
    },
    # the sizes of its positions are left out and are the class's own, so the heads keep theirs
    "FluxTransformer2DModel": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 1,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": 16,
    },
    "LongCatImageTransformer2DModel": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 1,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
    },
    "SanaTransformer2DModel": {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": WIDTH,
        "caption_channels": WIDTH,
        "sample_size": 2,
    },
    "Transformer2DModel": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": WIDTH,
        "sample_size": 8,
    },
    "WanTransformer3DModel": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "text_dim": WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
    },
    "CogVideoXTransformer3DModel": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "text_embed_dim": WIDTH,
        "time_embed_dim": 16,
        "max_text_seq_length": 24,
        "sample_height": 8,
        "sample_width": 8,
    },
    "AutoencoderKLCogVideoX": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "AutoencoderKLWan": {"base_dim": 4, "decoder_base_dim": 4, "num_res_blocks": 1},
    "UMT5EncoderModel": {
        "vocab_size": 128,
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    },
    "CLIPTextModel": {
        "vocab_size": 514,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
        "max_position_embeddings": 40,
    },
    "T5EncoderModel": {
        "vocab_size": 128,
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    },
}
SIZES |= {
    "AutoencoderKLQwenImage": {"base_dim": 8, "num_res_blocks": 1},
    "AutoencoderKLFlux2": SIZES["AutoencoderKL"],
    # heads keep their size wherever the sizes of positions add up to it
    "ZImageTransformer2DModel": {
        "dim": 128,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 1,
        "n_kv_heads": 1,
        "cap_feat_dim": WIDTH,
    },
    "QwenImageTransformer2DModel": {"num_layers": 1, "num_attention_heads": 1, "joint_attention_dim": WIDTH},
    "QwenImage21Transformer2DModel": {"num_layers": 1, "num_attention_heads": 1, "context_in_dim": WIDTH},
    "AutoencoderKLQwenImage21": {"base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1},
    "Krea2Transformer2DModel": {
        "num_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "text_hidden_dim": WIDTH,
        "text_intermediate_size": 32,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
    },
    "Flux2Transformer2DModel": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 1,
        "joint_attention_dim": 3 * WIDTH,
    },
    "ChromaTransformer2DModel": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 1,
        "joint_attention_dim": WIDTH,
        "approximator_hidden_dim": 32,
        "approximator_layers": 1,
    },
}
SIZES["CLIPTextModelWithProjection"] = SIZES["CLIPTextModel"]


@dataclass(frozen=True)
class Twin:
    """One published checkpoint of a family that is served.

    Attributes:
        kind: Of its backbone.
        index: Where the published files have no ``model_index.json``.
        missing: Text encoders and schedulers whose files are not among the published ones.
        config: The family's own fields of ``backbone``.
        repeats: Whether another twin goes the same way, so that training it belongs to the slow tier.
    """

    kind: str
    index: dict[str, Any] = field(default_factory=dict)
    missing: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    repeats: bool = False


SHORT = {"max_sequence_length": 24}
LONG = {"max_sequence_length": 200}  # the tiny tokenizer reads the pipeline's instruction letter by letter
SANA_INDEX = {
    "_class_name": "SanaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": ["transformers", "GemmaTokenizer"],
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
}


def _dynamic_scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


TWINS = {
    "runwayml--stable-diffusion-v1-5": Twin("sd15"),
    "stabilityai--stable-diffusion-2-1": Twin("sd15", repeats=True),
    "stabilityai--stable-diffusion-2-1-base": Twin("sd15", repeats=True),
    "stabilityai--stable-diffusion-xl-base-1.0": Twin("sdxl"),
    "stabilityai--stable-diffusion-3-medium-diffusers": Twin("sd3", config=SHORT),
    "stabilityai--stable-diffusion-3.5-medium": Twin("sd3", config=SHORT, repeats=True),
    "stabilityai--stable-diffusion-3.5-large": Twin("sd3", config=SHORT, repeats=True),
    "black-forest-labs--FLUX.1-dev": Twin("flux", config=SHORT),
    "Efficient-Large-Model--SANA1.5_1.6B_1024px_diffusers": Twin(
        "sana", SANA_INDEX, {"text_encoder": gemma_encoder}, config=SHORT
    ),
    "PixArt-alpha--PixArt-Sigma-XL-2-1024-MS": Twin("pixart", missing={"text_encoder": t5_encoder}, config=SHORT),
    "THUDM--CogVideoX-2b": Twin("cogvideox", missing={"text_encoder": t5_encoder}, config={**SHORT, "frames": 9}),
    "Wan-AI--Wan2.1-T2V-14B-Diffusers": Twin("wan", config={**SHORT, "frames": 5}),
    "Wan-AI--Wan2.2-TI2V-5B-Diffusers": Twin("wan", config={**SHORT, "frames": 5}, repeats=True),
    "meituan-longcat--LongCat-Image": Twin(
        "longcat", missing={"text_encoder": qwen25_vl_encoder, "scheduler": _dynamic_scheduler}
    ),
    "Tongyi-MAI--Z-Image": Twin("z-image", missing={"text_encoder": qwen3_encoder}, config=SHORT),
    "Qwen--Qwen-Image": Twin("qwen-image", missing={"text_encoder": qwen25_vl_encoder}, config=LONG),
    "Qwen--Qwen-Image-2.1": Twin(
        "qwen-image-2.1", missing={"text_encoder": partial(qwen3_vl_encoder, head=True)}, config={"max_tokens": 200}
    ),
    "krea--Krea-2-Raw": Twin("krea2", missing={"text_encoder": partial(qwen3_vl_encoder, layers=36)}, config=LONG),
    "black-forest-labs--FLUX.2-klein-base-4B": Twin(
        "flux2-klein", missing={"text_encoder": partial(qwen3_encoder, layers=27)}, config=SHORT
    ),
    "black-forest-labs--FLUX.2-dev": Twin(
        "flux2", missing={"text_encoder": partial(mistral_encoder, layers=30)}, config=SHORT
    ),
    "lodestones--Chroma1-HD": Twin("chroma", config=SHORT),
}
TOKENIZERS = {
    "CLIPTokenizer": clip_tokenizer,
    "T5Tokenizer": t5_tokenizer,
    "T5TokenizerFast": t5_tokenizer,
    "GemmaTokenizer": gemma_tokenizer,
    "Qwen2Tokenizer": qwen_tokenizer,
    "Qwen2TokenizerFast": qwen_tokenizer,
    "PixtralProcessor": qwen_tokenizer,
    "Qwen3VLProcessor": qwen_tokenizer,
    "Qwen2VLProcessor": qwen_tokenizer,  # never loaded: the real one needs torchvision
}


def raw(name: str, file: str) -> dict[str, Any]:
    """A published file as it is."""
    return dict(json.loads((PUBLISHED / name / file).read_text(encoding="utf-8")))


def build(name: str, folder: Path) -> Path:
    """Write the twin of a published checkpoint."""
    twin = TWINS[name]
    index = twin.index or raw(name, "model_index.json")
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for component, value in index.items():
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                _write(name, component, value[1], folder / component, twin)
    return folder


def _write(name: str, component: str, class_name: str, folder: Path, twin: Twin) -> None:
    published = PUBLISHED / name / component
    if component in twin.missing:
        twin.missing[component]().save_pretrained(folder)
    elif class_name in TOKENIZERS:
        TOKENIZERS[class_name]().save_pretrained(folder)
    elif class_name == "StableDiffusionSafetyChecker":
        _safety_checker().save_pretrained(folder)
    elif (published / "config.json").exists():
        _network(json.loads((published / "config.json").read_text()), class_name, folder)
    else:  # schedulers and preprocessors, byte for byte
        shutil.copytree(published, folder)


def _network(config: dict[str, Any], class_name: str, folder: Path) -> None:
    import diffusers
    import transformers

    small = {**config, **_sizes(config.get("_class_name", class_name), config)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(small))
    network: nn.Module
    if "_class_name" in config:
        real = {"Transformer2DModel": "PixArtTransformer2DModel"}.get(class_name, class_name)
        network = getattr(diffusers, real).from_config(small)
    else:
        kind = getattr(transformers, class_name)
        network = kind(kind.config_class.from_dict(small))
    network.save_pretrained(folder)  # type: ignore[operator]
    (folder / "config.json").write_text(json.dumps(small))  # as published, and not as the class would write it today


def _sizes(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    sizes = SIZES.get(class_name, {})
    if class_name == "SD3Transformer2DModel" and config.get("dual_attention_layers"):
        return {**sizes, "dual_attention_layers": [0]}
    return sizes if class_name != "UNet2DConditionModel" else _unet_sizes(config)


def _unet_sizes(config: dict[str, Any]) -> dict[str, Any]:
    levels = len(config["block_out_channels"])
    sizes: dict[str, Any] = {
        "block_out_channels": [16] * levels,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 8,
        "cross_attention_dim": 16,
        "attention_head_dim": [2] * levels if isinstance(config["attention_head_dim"], list) else 2,
    }
    if config.get("addition_time_embed_dim"):
        pooled = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 16}
        return {**sizes, **pooled, "cross_attention_dim": 32, "transformer_layers_per_block": [1, 1, 2]}
    return sizes


def _safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**small, "image_size": 8, "patch_size": 8}
    return StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=small, projection_dim=8))
