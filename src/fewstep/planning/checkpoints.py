"""The networks that a plan is about: real configurations, no weights, the meta device."""

import json
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from fewstep.backbones.configurations import complete_components
from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.registry import adapter_class, create_model_adapter
from fewstep.backbones.source import quiet_imports
from fewstep.core.conditioning import Conditioning
from fewstep.errors import ConfigError

CLIP_TOKENS = 77
LONGCAT_TOKENS = 512
# of the shipped checkpoints, whose VAE files hold only what adapters read; rounded
_DECODERS = {"AutoencoderKL": 84_000_000, "AutoencoderDC": 313_000_000}


@cache
def shipped() -> Mapping[str, Mapping[str, Any]]:
    """The configurations of the built-in recipes' checkpoints as opening them gives them, by the checkpoint's name."""
    folder = files("fewstep.planning") / "configurations"
    read = [json.loads(item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".json")]
    return {entry["model"]: complete_components(entry["components"], place=entry["model"]) for entry in read}


def planned_adapter(config: BackboneConfig) -> DiffusersAdapter:
    """The adapter of a recipe's checkpoint; a built-in recipe's asks no network.

    Raises:
        ConfigError: The checkpoint cannot be read, or its backbone is not one that a plan can be made for.
    """
    components = shipped().get(config.origin)
    if components is None or config.revision is not None:
        adapter = create_model_adapter(config.model, config)
    else:
        adapter = adapter_class(config.kind)(config, components)
    if not isinstance(adapter, DiffusersAdapter) or config.kind not in _PROMPTS:
        raise ConfigError(
            f"backbone.kind is {config.kind}, for which fewstep plan does not know what a prompt looks like; "
            f"it knows {', '.join(sorted(_PROMPTS))}."
        )
    adapter.require_usable()
    return adapter


def prompts_without_values(adapter: DiffusersAdapter, count: int, dtype: torch.dtype) -> Conditioning:
    """Embeddings of ``count`` prompts on the meta device, in the shapes that the adapter's ``encode`` gives."""
    shapes = _PROMPTS[adapter.kind](adapter.network_config, adapter.config.model_dump())
    made = {}
    for name, shape in shapes.items():
        kind = torch.int64 if name.endswith("mask") else dtype
        made[name] = torch.empty(count, *shape, dtype=kind, device="meta")
    return Conditioning(made)


def decoder_parameters(adapter: DiffusersAdapter) -> int:
    """Parameters of the VAE, which the main process keeps when it draws pictures."""
    if adapter.config.origin in shipped():
        return _DECODERS[adapter.vae_class]
    with quiet_imports():
        import diffusers

        vae_class = getattr(diffusers, adapter.vae_class)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae = vae_class.from_config(dict(adapter.vae_config))
    return sum(parameter.numel() for parameter in vae.parameters())


Shapes = dict[str, tuple[int, ...]]


def _sd3(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    tokens = CLIP_TOKENS + backbone["max_sequence_length"]
    return {
        "prompt_embeds": (tokens, network["joint_attention_dim"]),
        "pooled_prompt_embeds": (network["pooled_projection_dim"],),
    }


def _flux(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    return {
        "prompt_embeds": (backbone["max_sequence_length"], network["joint_attention_dim"]),
        "pooled_prompt_embeds": (network["pooled_projection_dim"],),
    }


def _longcat(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    return {"prompt_embeds": (LONGCAT_TOKENS, network["joint_attention_dim"])}


def _masked(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    tokens = backbone["max_sequence_length"]
    return {"prompt_embeds": (tokens, network["caption_channels"]), "prompt_attention_mask": (tokens,)}


def _sd15(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    return {"prompt_embeds": (CLIP_TOKENS, network["cross_attention_dim"])}


def _sdxl(network: Mapping[str, Any], backbone: Mapping[str, Any]) -> Shapes:
    # the rest of that input are six numbers about the picture's size
    pooled = network["projection_class_embeddings_input_dim"] - 6 * network["addition_time_embed_dim"]
    return {"prompt_embeds": (CLIP_TOKENS, network["cross_attention_dim"]), "pooled_prompt_embeds": (pooled,)}


_PROMPTS = {
    "sd3": _sd3,
    "flux": _flux,
    "longcat": _longcat,
    "sana": _masked,
    "pixart": _masked,
    "sd15": _sd15,
    "sdxl": _sdxl,
}
