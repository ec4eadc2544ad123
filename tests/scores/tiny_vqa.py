"""Answering models with a few thousand random weights, as repositories have them."""

from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

Model = TypeVar("Model", bound=PreTrainedModel)
WORDS = "[PAD] [UNK] [CLS] [SEP] [DEC] yes Yes no No is there a dog bench ? Answer with or only ."
CHAT = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def write_tokenizer(folder: Path, words: str = WORDS, *, wrap: bool = False) -> dict[str, int]:
    """A tokenizer of whole words; ``wrap`` puts [CLS] and [SEP] around a text, as BERT's does."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words.split())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CHAT])
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[DEC]"])
    if wrap:
        ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    return dict(tokenizer.get_vocab())


def write_qwen(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL."""
    ids = write_tokenizer(folder)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = _random(Qwen2_5_VLForConditionalGeneration, config)
    model.save_pretrained(folder)
    return model


def write_blip(folder: Path) -> BlipForQuestionAnswering:
    """A BLIP for question answering."""
    ids = write_tokenizer(folder, wrap=True)
    config = BlipConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": 32,
            "encoder_hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": ids["[DEC]"],
            "eos_token_id": ids["[SEP]"],
            "sep_token_id": ids["[SEP]"],
            "pad_token_id": ids["[PAD]"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
    )
    model = _random(BlipForQuestionAnswering, config)
    model.save_pretrained(folder)
    return model


def _random(kind: type[Model], config: object) -> Model:
    model = kind(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    return model
