"""The networks that a plan is about: real configurations, no weights, the meta device."""

import json
import math
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from fewstep.backbones.configurations import complete_components
from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.registry import adapter_class, create_model_adapter
from fewstep.backbones.using import quiet_imports
from fewstep.core.conditioning import Conditioning
from fewstep.errors import ConfigError

# of shipped checkpoints whose VAE files hold only what adapters read; rounded
_DECODERS = {
    "AutoencoderKL": 84_000_000,
    "AutoencoderDC": 313_000_000,
    "AutoencoderKLQwenImage": 127_000_000,
    "AutoencoderKLQwenImage21": 338_000_000,
    "AutoencoderKLFlux2": 84_000_000,
}


@cache
def shipped(model: str) -> Mapping[str, Any] | None:
    """The configurations of a built-in recipe's checkpoint as opening it gives them; ``None`` of any other."""
    found = as_published().get(model)
    return None if found is None else complete_components(found, place=model)


@cache
def as_published() -> Mapping[str, Mapping[str, Any]]:
    """The configurations of built-in recipes' checkpoints by the checkpoint's name, without defaults of classes."""
    folder = files("fewstep.planning") / "configurations"
    read = [json.loads(item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".json")]
    return {entry["model"]: entry["components"] for entry in read}


def described_adapter(config: BackboneConfig, components: Mapping[str, Any] | None = None) -> ModelAdapter:
    """The adapter of a recipe's checkpoint from its configuration alone; a built-in recipe's asks no network.

    Args:
        config: The recipe's ``backbone``.
        components: The checkpoint's completed configurations, where they are known.

    Raises:
        ConfigError: The checkpoint cannot be read.
    """
    if components is None and config.revision is None:
        components = shipped(config.origin)
    if components is None:
        adapter = create_model_adapter(config.model, config)
    else:
        adapter = adapter_class(config.kind)(config, components)
    adapter.require_usable()
    return adapter


def planned_adapter(config: BackboneConfig, components: Mapping[str, Any] | None = None) -> DiffusersAdapter:
    """:func:`described_adapter` at the largest size in training, of which the network can be built without weights.

    Raises:
        ConfigError: It cannot, or the checkpoint cannot be read.
    """
    adapter = described_adapter(config, components)
    if not isinstance(adapter, DiffusersAdapter):
        raise ConfigError(
            f"backbone.kind is {config.kind}, whose network fewstep plan cannot build without weights: "
            f"{type(adapter).__name__} is no DiffusersAdapter."
        )
    return adapter.at_size(*max(config.training_sizes, key=math.prod))


def prompts_without_values(adapter: ModelAdapter, count: int, dtype: torch.dtype) -> Conditioning:
    """Embeddings of ``count`` prompts on the meta device, in the shapes that the adapter's ``encode`` gives."""
    shapes = adapter.prompt_shapes().items()
    made = {n: torch.empty(count, *one.shape, dtype=one.dtype or dtype, device="meta") for n, one in shapes}
    return Conditioning(made)


def decoder_parameters(adapter: DiffusersAdapter) -> int:
    """Parameters of the VAE, which the main process keeps when it draws pictures."""
    if adapter.config.origin in as_published() and adapter.vae_class in _DECODERS:
        return _DECODERS[adapter.vae_class]
    with quiet_imports():
        import diffusers

        vae_class = getattr(diffusers, adapter.vae_class)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae = vae_class.from_config(dict(adapter.vae_config))
    return sum(parameter.numel() for parameter in vae.parameters())
