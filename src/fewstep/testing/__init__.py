"""Tests for a backbone, ours or yours: one suite for all of them, and tiny real parts of pipelines to build theirs."""

from fewstep.testing.conformance import conformance
from fewstep.testing.family import Family, stock_pack, stock_unpack
from fewstep.testing.text_encoders import (
    clip_encoder,
    gemma_encoder,
    mistral_encoder,
    qwen3_encoder,
    qwen3_vl_encoder,
    qwen25_vl_encoder,
    t5_encoder,
    umt5_encoder,
)
from fewstep.testing.tokenizers import clip_tokenizer, gemma_tokenizer, qwen_processor, qwen_tokenizer, t5_tokenizer
from fewstep.testing.vaes import dc_vae, flux2_vae, kl_vae, qwen_image21_vae, qwen_image_vae, wan_vae

__all__ = [
    "Family",
    "clip_encoder",
    "clip_tokenizer",
    "conformance",
    "dc_vae",
    "flux2_vae",
    "gemma_encoder",
    "gemma_tokenizer",
    "kl_vae",
    "mistral_encoder",
    "qwen3_encoder",
    "qwen3_vl_encoder",
    "qwen25_vl_encoder",
    "qwen_image21_vae",
    "qwen_image_vae",
    "qwen_processor",
    "qwen_tokenizer",
    "stock_pack",
    "stock_unpack",
    "t5_encoder",
    "t5_tokenizer",
    "umt5_encoder",
    "wan_vae",
]
