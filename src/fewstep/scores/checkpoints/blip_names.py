"""ImageReward's names of its BLIP weights as transformers' names, and the configuration that the shapes tell."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

_VISION = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
# projections of BLIP's contrastive loss, which the reward does not use, and a counting tensor
_DROPPED = re.compile(r"blip\.(vision_proj|text_proj)\.|blip\.text_encoder\.embeddings\.position_ids$")
# width of one attention head in ViT-L/16 and BERT-base; the shapes do not tell it
_HEAD = 64
VISION_PREFIX, TEXT_PREFIX = "vision_model.", "text_model."


def is_image_reward(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are ImageReward's own."""
    return any(name.startswith("blip.visual_encoder.") for name in tensors)


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename; a name that is not ImageReward's stays, so that loading can report it."""
    return {new: tensor for name, tensor in tensors.items() for new in _mapped(name)}


def _mapped(name: str) -> Iterator[str]:
    if _DROPPED.match(name):
        return
    if name.startswith("blip.text_encoder."):
        yield name.replace("blip.text_encoder.", TEXT_PREFIX, 1)
        return
    before, vision, rest = name.rpartition("blip.visual_encoder.")
    if not vision or before:
        yield name
        return
    for pattern, replacement in _VISION:
        rest, count = re.subn(pattern, replacement, rest)
        if count:
            break
    yield f"{VISION_PREFIX}{rest}"


def config_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The two configurations of ImageReward, from the shapes of its renamed weights."""
    return {"vision_config": _vision_config(tensors), "text_config": _text_config(tensors)}


def _vision_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = tensors[f"{VISION_PREFIX}embeddings.patch_embedding.weight"]
    places = tensors[f"{VISION_PREFIX}embeddings.position_embedding"].shape[1]
    width = len(patches)
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors[f"{VISION_PREFIX}encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _num_layers(tensors, f"{VISION_PREFIX}encoder.layers."),
        "num_attention_heads": width // _HEAD,
        "image_size": round((places - 1) ** 0.5) * patches.shape[-1],
        "patch_size": patches.shape[-1],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }


def _text_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    vocabulary, width = tensors[f"{TEXT_PREFIX}embeddings.word_embeddings.weight"].shape
    block = f"{TEXT_PREFIX}encoder.layer.0"
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "encoder_hidden_size": tensors[f"{block}.crossattention.self.key.weight"].shape[1],
        "intermediate_size": len(tensors[f"{block}.intermediate.dense.weight"]),
        "num_hidden_layers": _num_layers(tensors, f"{TEXT_PREFIX}encoder.layer."),
        "num_attention_heads": width // _HEAD,
        "max_position_embeddings": len(tensors[f"{TEXT_PREFIX}embeddings.position_embeddings.weight"]),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "is_decoder": True,  # builds the cross-attention; the call says is_decoder=False, or the text would be causal
    }


def _num_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})
