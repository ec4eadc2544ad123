"""Tests for a backbone of one's own: tiny real parts of pipelines."""

from fewstep.testing.text_encoders import clip_encoder, gemma_encoder, qwen25_vl_encoder, t5_encoder, umt5_encoder
from fewstep.testing.tokenizers import clip_tokenizer, gemma_tokenizer, qwen_tokenizer, t5_tokenizer
from fewstep.testing.vaes import dc_vae, kl_vae

__all__ = [
    "clip_encoder",
    "clip_tokenizer",
    "dc_vae",
    "gemma_encoder",
    "gemma_tokenizer",
    "kl_vae",
    "qwen25_vl_encoder",
    "qwen_tokenizer",
    "t5_encoder",
    "t5_tokenizer",
    "umt5_encoder",
]
