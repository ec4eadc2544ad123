"""Tiny real text encoders with random weights, in eval mode: a fresh T5 would drop out at random."""

from typing import Any

WIDTH = 32
"""Of the embeddings of every encoder but CLIP."""


def clip_encoder(width: int = 16, positions: int = 40, *, projection: bool = True) -> Any:
    """A CLIP of two layers; goes with :func:`clip_tokenizer`.

    Args:
        width: Of a token's embedding, and of the pooled one.
        positions: Longest prompt, in tokens.
        projection: A ``CLIPTextModelWithProjection``, as in SD3 and SDXL's second; or a ``CLIPTextModel``.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        max_position_embeddings=positions,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5_encoder() -> Any:
    """A T5 encoder of one layer; goes with :func:`t5_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(**_T5)).eval()


def umt5_encoder() -> Any:
    """A UMT5 encoder of one layer, as AuraFlow and Wan have it; goes with :func:`t5_tokenizer`."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(**_T5)).eval()


def gemma_encoder() -> Any:
    """A Gemma2 decoder of one layer, as SANA has it; goes with :func:`gemma_tokenizer`."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=262, num_hidden_layers=1, head_dim=16, pad_token_id=0, eos_token_id=1, bos_token_id=2, **_DECODER
    )
    return Gemma2Model(config).eval()


def qwen25_vl_encoder() -> Any:
    """A Qwen2.5-VL of one layer, as LongCat-Image and Qwen-Image have it; goes with :func:`qwen_tokenizer`."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 264,
        "num_hidden_layers": 1,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        **_DECODER,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def qwen3_encoder(layers: int = 2) -> Any:
    """A Qwen3, as Z-Image and FLUX.2 klein have it; goes with :func:`qwen_tokenizer`.

    Args:
        layers: A pipeline that joins the states of several layers asks for as many as the last of them.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(vocab_size=264, num_hidden_layers=layers, head_dim=16, **_DECODER)
    return Qwen3ForCausalLM(config).eval()


def qwen3_vl_encoder(layers: int = 2, *, head: bool = False) -> Any:
    """A Qwen3-VL, as Krea 2 and Qwen-Image-2.1 have it; goes with :func:`qwen_tokenizer` and :func:`qwen_processor`.

    Args:
        layers: See :func:`qwen3_encoder`.
        head: A ``Qwen3VLForConditionalGeneration``, as in Qwen-Image-2.1; or a ``Qwen3VLModel``.
    """
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    text = {"vocab_size": 264, "num_hidden_layers": layers, "head_dim": 16, "rope_parameters": rope, **_DECODER}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    return (Qwen3VLForConditionalGeneration if head else Qwen3VLModel)(config).eval()


def mistral_encoder(layers: int = 3) -> Any:
    """A Mistral 3, as FLUX.2-dev has it; goes with :func:`qwen_tokenizer` in place of a processor.

    Args:
        layers: See :func:`qwen3_encoder`.
    """
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

    text = MistralConfig(vocab_size=264, num_hidden_layers=layers, head_dim=16, **_DECODER)
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)).eval()


_T5 = {"vocab_size": 128, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
_DECODER = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
