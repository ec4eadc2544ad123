"""Tiny pipelines as one file in the layout of the original code: the inverse of what diffusers' converters do."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
UNET = "model.diffusion_model."


def renamed(tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> Tensors:
    """Every rule, a pattern and what takes its place, applied to every name in order."""
    made = {}
    for name, value in tensors.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        made[name] = value.contiguous()
    return made


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


RESNET = {
    r"(blocks?\..*)\.norm1\.": r"\1.in_layers.0.",
    r"(blocks?\..*)\.conv1\.": r"\1.in_layers.2.",
    r"\.time_emb_proj\.": ".emb_layers.1.",
    r"(blocks?\..*)\.norm2\.": r"\1.out_layers.0.",
    r"(blocks?\..*)\.conv2\.": r"\1.out_layers.3.",
    r"\.conv_shortcut\.": ".skip_connection.",
}


def ldm_unet(unet: Any) -> Tensors:
    """A UNet2DConditionModel in the names of LDM and sgm."""
    layers = unet.config.layers_per_block
    made: Tensors = {}
    for name, value in unet.state_dict().items():
        top, _, rest = name.partition(".")
        if top in ("down_blocks", "up_blocks"):
            block, part, layer, tail = rest.split(".", 3)
            if part == "downsamplers":
                place = f"input_blocks.{1 + int(block) * (layers + 1) + layers}.0"
                new = f"{place}.{tail.replace('conv.', 'op.')}"
            elif part == "upsamplers":
                attention = any(key.startswith(f"up_blocks.{block}.attentions") for key in unet.state_dict())
                new = f"output_blocks.{int(block) * (layers + 1) + layers}.{2 if attention else 1}.{tail}"
            else:
                first = 1 if top == "down_blocks" else 0
                side = "input_blocks" if top == "down_blocks" else "output_blocks"
                number = first + int(block) * (layers + 1) + int(layer)
                new = f"{side}.{number}.{0 if part == 'resnets' else 1}.{tail}"
        elif top == "mid_block":
            part, layer, tail = rest.split(".", 2)
            new = f"middle_block.{1 if part == 'attentions' else 2 * int(layer)}.{tail}"
        else:
            new = name
        made[new] = value
    # norms and convolutions inside transformer blocks are called the same as those of a resnet
    resnets = {name: value for name, value in made.items() if "transformer_blocks" not in name}
    others = {name: value for name, value in made.items() if "transformer_blocks" in name}
    outer = {
        r"^conv_in\.": "input_blocks.0.0.",
        r"^time_embedding\.linear_1\.": "time_embed.0.",
        r"^time_embedding\.linear_2\.": "time_embed.2.",
        r"^add_embedding\.linear_1\.": "label_emb.0.0.",
        r"^add_embedding\.linear_2\.": "label_emb.0.2.",
        r"^conv_norm_out\.": "out.0.",
        r"^conv_out\.": "out.2.",
    }
    return renamed(resnets, {**RESNET, **outer}) | renamed(others, {})


def ldm_vae(vae: Any) -> Tensors:
    """An AutoencoderKL in the names of LDM."""
    last = len(vae.config.block_out_channels) - 1
    made = renamed(
        vae.state_dict(),
        {
            r"encoder\.down_blocks\.(\d+)\.resnets\.": r"encoder.down.\1.block.",
            r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.": r"encoder.down.\1.downsample.",
            r"mid_block\.resnets\.0\.": "mid.block_1.",
            r"mid_block\.resnets\.1\.": "mid.block_2.",
            r"mid_block\.attentions\.0\.": "mid.attn_1.",
            r"attn_1\.group_norm\.": "attn_1.norm.",
            r"attn_1\.to_([qkv])\.": r"attn_1.\1.",
            r"attn_1\.to_out\.0\.": "attn_1.proj_out.",
            r"conv_shortcut\.": "nin_shortcut.",
            r"conv_norm_out\.": "norm_out.",
        },
    )
    turned = {}
    for name, value in made.items():
        match = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)\.(.*)", name)
        if match:
            kind = "block" if match[2] == "resnets" else "upsample"
            name = f"decoder.up.{last - int(match[1])}.{kind}.{match[3]}"
        is_projection = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        turned[name] = value[:, :, None, None] if is_projection else value
    return turned


def clip(encoder: Any) -> Tensors:
    """A CLIP text model in the names of transformers, as LDM and ComfyUI hold it."""
    state = encoder.state_dict()
    names = {
        name: name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}" for name in state
    }
    return {names[name]: value.contiguous() for name, value in state.items()}


def open_clip(encoder: Any) -> Tensors:
    """A CLIP text model with projection in the names of OpenCLIP."""
    made = renamed(
        {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()},
        {
            r"^embeddings\.position_embedding\.weight": "positional_embedding",
            r"^embeddings\.token_embedding\.": "token_embedding.",
            r"^final_layer_norm\.": "ln_final.",
            r"^text_projection\.weight": "text_projection",
            r"^encoder\.layers\.": "transformer.resblocks.",
            r"layer_norm1": "ln_1",
            r"layer_norm2": "ln_2",
            r"mlp\.fc1": "mlp.c_fc",
            r"mlp\.fc2": "mlp.c_proj",
            r"self_attn\.": "attn.",
        },
    )
    made["text_projection"] = made["text_projection"].T.contiguous()
    for name in [name for name in made if ".attn.q_proj." in name]:
        parts = [made.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        made[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return made


def _fused(made: Tensors, names: list[str], fused: str) -> None:
    for kind in ("weight", "bias"):
        if f"{names[0]}.{kind}" in made:
            made[f"{fused}.{kind}"] = torch.cat([made.pop(f"{name}.{kind}") for name in names])


def _swapped(value: Tensor) -> Tensor:
    first, second = value.chunk(2)
    return torch.cat([second, first])


def sd3_transformer(network: Any) -> Tensors:
    """An SD3Transformer2DModel in the names of Stability's code."""
    made = dict(network.state_dict())
    last = network.config.num_layers - 1
    for block in range(network.config.num_layers):
        own = f"transformer_blocks.{block}"
        new = f"joint_blocks.{block}"
        _fused(made, [f"{own}.attn.to_{letter}" for letter in "qkv"], f"{new}.x_block.attn.qkv")
        _fused(made, [f"{own}.attn.add_{letter}_proj" for letter in "qkv"], f"{new}.context_block.attn.qkv")
        _fused(made, [f"{own}.attn2.to_{letter}" for letter in "qkv"], f"{new}.x_block.attn2.qkv")
    for name in [name for name in made if name.startswith(("norm_out.", f"transformer_blocks.{last}.norm1_context."))]:
        made[name] = _swapped(made[name])
    block = r"^transformer_blocks\.(\d+)\."
    return renamed(
        made,
        {
            r"^pos_embed\.pos_embed": "pos_embed",
            r"^pos_embed\.proj\.": "x_embedder.proj.",
            r"^time_text_embed\.timestep_embedder\.linear_1\.": "t_embedder.mlp.0.",
            r"^time_text_embed\.timestep_embedder\.linear_2\.": "t_embedder.mlp.2.",
            r"^time_text_embed\.text_embedder\.linear_1\.": "y_embedder.mlp.0.",
            r"^time_text_embed\.text_embedder\.linear_2\.": "y_embedder.mlp.2.",
            block + r"(attn2?)\.norm_([qk])\.": r"joint_blocks.\1.x_block.\2.ln_\3.",
            block + r"attn\.norm_added_([qk])\.": r"joint_blocks.\1.context_block.attn.ln_\2.",
            block + r"(attn2?)\.to_out\.0\.": r"joint_blocks.\1.x_block.\2.proj.",
            block + r"attn\.to_add_out\.": r"joint_blocks.\1.context_block.attn.proj.",
            block + r"norm1\.linear\.": r"joint_blocks.\1.x_block.adaLN_modulation.1.",
            block + r"norm1_context\.linear\.": r"joint_blocks.\1.context_block.adaLN_modulation.1.",
            block + r"ff\.net\.0\.proj\.": r"joint_blocks.\1.x_block.mlp.fc1.",
            block + r"ff\.net\.2\.": r"joint_blocks.\1.x_block.mlp.fc2.",
            block + r"ff_context\.net\.0\.proj\.": r"joint_blocks.\1.context_block.mlp.fc1.",
            block + r"ff_context\.net\.2\.": r"joint_blocks.\1.context_block.mlp.fc2.",
            r"^proj_out\.": "final_layer.linear.",
            r"^norm_out\.linear\.": "final_layer.adaLN_modulation.1.",
        },
    )


def flux_transformer(network: Any) -> Tensors:
    """A FluxTransformer2DModel in the names of Black Forest Labs' code."""
    made = dict(network.state_dict())
    for block in range(network.config.num_layers):
        own, new = f"transformer_blocks.{block}.attn", f"double_blocks.{block}"
        _fused(made, [f"{own}.to_{letter}" for letter in "qkv"], f"{new}.img_attn.qkv")
        _fused(made, [f"{own}.add_{letter}_proj" for letter in "qkv"], f"{new}.txt_attn.qkv")
    for block in range(network.config.num_single_layers):
        own = f"single_transformer_blocks.{block}"
        parts = [*(f"{own}.attn.to_{letter}" for letter in "qkv"), f"{own}.proj_mlp"]
        _fused(made, parts, f"single_blocks.{block}.linear1")
    for name in [name for name in made if name.startswith("norm_out.")]:
        made[name] = _swapped(made[name])
    double, single = r"^transformer_blocks\.(\d+)\.", r"^single_transformer_blocks\.(\d+)\."
    embedders = {"timestep_embedder": "time_in", "text_embedder": "vector_in", "guidance_embedder": "guidance_in"}
    layers = {"linear_1": "in_layer", "linear_2": "out_layer"}
    return renamed(
        made,
        {
            **{
                rf"^time_text_embed\.{embedder}\.{layer}\.": f"{new}.{place}."
                for embedder, new in embedders.items()
                for layer, place in layers.items()
            },
            r"^context_embedder\.": "txt_in.",
            r"^x_embedder\.": "img_in.",
            double + r"norm1\.linear\.": r"double_blocks.\1.img_mod.lin.",
            double + r"norm1_context\.linear\.": r"double_blocks.\1.txt_mod.lin.",
            double + r"attn\.norm_q\.weight": r"double_blocks.\1.img_attn.norm.query_norm.scale",
            double + r"attn\.norm_k\.weight": r"double_blocks.\1.img_attn.norm.key_norm.scale",
            double + r"attn\.norm_added_q\.weight": r"double_blocks.\1.txt_attn.norm.query_norm.scale",
            double + r"attn\.norm_added_k\.weight": r"double_blocks.\1.txt_attn.norm.key_norm.scale",
            double + r"ff\.net\.0\.proj\.": r"double_blocks.\1.img_mlp.0.",
            double + r"ff\.net\.2\.": r"double_blocks.\1.img_mlp.2.",
            double + r"ff_context\.net\.0\.proj\.": r"double_blocks.\1.txt_mlp.0.",
            double + r"ff_context\.net\.2\.": r"double_blocks.\1.txt_mlp.2.",
            double + r"attn\.to_out\.0\.": r"double_blocks.\1.img_attn.proj.",
            double + r"attn\.to_add_out\.": r"double_blocks.\1.txt_attn.proj.",
            single + r"norm\.linear\.": r"single_blocks.\1.modulation.lin.",
            single + r"attn\.norm_q\.weight": r"single_blocks.\1.norm.query_norm.scale",
            single + r"attn\.norm_k\.weight": r"single_blocks.\1.norm.key_norm.scale",
            single + r"proj_out\.": r"single_blocks.\1.linear2.",
            r"^proj_out\.": "final_layer.linear.",
            r"^norm_out\.linear\.": "final_layer.adaLN_modulation.1.",
        },
    )


def network(kind: str, pipeline: Any) -> Tensors:
    """The network of a family's pipeline, with the prefix of whole files."""
    if kind in ("sd15", "sdxl"):
        return prefixed(ldm_unet(pipeline.unet), UNET)
    own = sd3_transformer if kind == "sd3" else flux_transformer
    return prefixed(own(pipeline.transformer), UNET)


def vae(kind: str, pipeline: Any) -> Tensors:
    return prefixed(ldm_vae(pipeline.vae), "vae." if kind == "flux" else "first_stage_model.")


def text_encoders(kind: str, pipeline: Any) -> Tensors:
    """Every text encoder of a family's pipeline as whole files hold them."""
    match kind:
        case "sd15":
            return prefixed(clip(pipeline.text_encoder), "cond_stage_model.transformer.")
        case "sdxl":
            first = prefixed(clip(pipeline.text_encoder), "conditioner.embedders.0.transformer.")
            return first | prefixed(open_clip(pipeline.text_encoder_2), "conditioner.embedders.1.model.")
    t5 = pipeline.text_encoder_3 if kind == "sd3" else pipeline.text_encoder_2
    made = prefixed(clip(pipeline.text_encoder), "text_encoders.clip_l.transformer.")
    made |= prefixed(
        {name: value.clone() for name, value in t5.state_dict().items()}, "text_encoders.t5xxl.transformer."
    )
    if kind == "sd3":
        made |= prefixed(clip(pipeline.text_encoder_2), "text_encoders.clip_g.transformer.")
    return made
