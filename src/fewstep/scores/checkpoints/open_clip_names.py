"""open_clip's names of a CLIP's weights, as transformers' names, and the configuration that the shapes tell."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

_TOWERS = (
    (r"visual\.transformer\.resblocks\.(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"transformer\.resblocks\.(\d+)\.", r"text_model.encoder.layers.\1."),
)
_IN_A_BLOCK = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
)
_ALONE = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"visual.proj", "text_projection"}
# a buffer of the causal mask, which transformers makes itself
_DROPPED = {"attn_mask"}
# width of one attention head in ViT-H/14; the shapes do not tell it
_VISION_HEAD, _TEXT_HEAD = 80, 64


def is_open_clip(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are open_clip's."""
    return any(name.removeprefix("model.").startswith("visual.") for name in tensors)


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, split and transpose; a name that is not open_clip's stays, so that loading can report it."""
    return {
        new: value for name, tensor in tensors.items() for new, value in _mapped(name.removeprefix("model."), tensor)
    }


def _mapped(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _DROPPED:
        return
    if name in _ALONE:
        yield _ALONE[name], tensor.T.contiguous() if name in _TRANSPOSED else tensor
        return
    for pattern, tower in _TOWERS:
        renamed, count = re.subn(f"^{pattern}", tower, name)
        if count:
            yield from _in_block(renamed, tensor)
            return
    yield name, tensor


def _in_block(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    before, joint, kind = name.rpartition("attn.in_proj_")
    if joint:
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{before}self_attn.{letter}_proj.{kind}", part.contiguous()
        return
    for old, new in _IN_A_BLOCK:
        name = name.replace(f".{old}", f".{new}")
    yield name, tensor


def config_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of a ViT-H/14-like CLIP, from the shapes of its renamed weights."""
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    places, width = tensors["vision_model.embeddings.position_embedding.weight"].shape
    length, text_width = tensors["text_model.embeddings.position_embedding.weight"].shape
    vocabulary = len(tensors["text_model.embeddings.token_embedding.weight"])
    projection = len(tensors["visual_projection.weight"])
    vision = {
        "image_size": round((places - 1) ** 0.5) * patches.shape[-1],
        "patch_size": patches.shape[-1],
        **_tower(tensors, "vision_model", width, width // _VISION_HEAD, projection),
    }
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": length,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
        **_tower(tensors, "text_model", text_width, text_width // _TEXT_HEAD, projection),
    }
    return {"model_type": "clip", "projection_dim": projection, "vision_config": vision, "text_config": text}


def _tower(tensors: Mapping[str, Tensor], tower: str, width: int, heads: int, projection: int) -> dict[str, Any]:
    blocks = {name.split(".")[3] for name in tensors if name.startswith(f"{tower}.encoder.layers.")}
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": len(blocks),
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "projection_dim": projection,
    }
