"""HPS v3 with a few thousand weights: a Qwen2-VL of the real class, stored by the names of transformers 4.45."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLModel

FRAME = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
WORDS = 256 + len(FRAME)
IMAGE, REWARD = WORDS - 1, WORDS
# as the config.json of Qwen2-VL-7B-Instruct is written: everything of the language model at the top
CONFIG: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 8192,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "rms_norm_eps": 1e-6,
    "vocab_size": WORDS + 50,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "image_token_id": IMAGE,
    "video_token_id": 2,
    "vision_start_token_id": 258,
    "vision_end_token_id": 259,
    "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
}


def write_base(folder: Path) -> Path:
    """Configuration and a tokenizer that reads bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(FRAME)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def random_qwen(seed: int = 0) -> tuple[Qwen2VLModel, dict[str, Tensor]]:
    """The body with one word more, for the reward token, and the head by its published names."""
    torch.manual_seed(seed)
    config = Qwen2VLConfig.from_dict(json.loads(json.dumps(CONFIG)))
    config.text_config.vocab_size = WORDS + 1
    body = Qwen2VLModel(config).eval()
    with torch.no_grad():
        for weight in body.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    widths = (64, 32, 16, 2)
    head = {}
    for number, inner, outer in zip((0, 3, 5), widths, widths[1:], strict=False):
        head[f"rm_head.{number}.weight"] = torch.randn(outer, inner) * 0.5
        head[f"rm_head.{number}.bias"] = torch.randn(outer) * 0.1
    return body, head


def published(body: Qwen2VLModel, head: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that HPSv3.safetensors has."""
    names = {name: name.replace("language_model.", "model.", 1) for name in body.state_dict()}
    weights = {names[name]: value.clone() for name, value in body.state_dict().items()}
    return {**weights, **head, "lm_head.weight": torch.zeros(WORDS + 1, 64)}


def write_hpsv3(folder: Path, seed: int = 0) -> tuple[Qwen2VLModel, dict[str, Tensor]]:
    folder.mkdir(parents=True, exist_ok=True)
    body, head = random_qwen(seed)
    save_file(published(body, head), folder / "HPSv3.safetensors")
    return body, head
