"""Networks of real configurations with random weights, made where they compute: no download, no copy on the CPU."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.registry import adapter_class
from fewstep.backbones.using import quiet_imports
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.planning.meta_networks import planned_adapter

TINY: Mapping[str, Mapping[str, Any]] = {
    "sd3": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "caption_projection_dim": 32,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 16,
        "sample_size": 8,
        "pos_embed_max_size": 8,
    },
    "sana": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "sample_size": 4,
    },
}
"""What a test makes of a family's network."""

_CLIP = {"vocab_size": 49408, "max_position_embeddings": 77}
ENCODERS: Mapping[str, Mapping[str, tuple[str, str, Mapping[str, Any], int]]] = {
    "sd3": {
        "CLIP-L": (
            "CLIPTextModelWithProjection",
            "CLIPTextConfig",
            {
                **_CLIP,
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "projection_dim": 768,
            },
            77,
        ),
        "OpenCLIP bigG": (
            "CLIPTextModelWithProjection",
            "CLIPTextConfig",
            {
                **_CLIP,
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "projection_dim": 1280,
                "hidden_act": "gelu",
            },
            77,
        ),
        "T5-XXL": (
            "T5EncoderModel",
            "T5Config",
            {
                "vocab_size": 32128,
                "d_model": 4096,
                "d_kv": 64,
                "d_ff": 10240,
                "num_layers": 24,
                "num_heads": 64,
                "feed_forward_proj": "gated-gelu",
            },
            256,
        ),
    },
    "sana": {
        "Gemma 2 2B": (
            "Gemma2Model",
            "Gemma2Config",
            {
                "vocab_size": 256000,
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
            },
            300,
        ),
    },
}
"""Text encoders of the released checkpoints by family: class, class of the configuration, configuration, tokens."""

_TINY_ENCODERS: Mapping[str, Mapping[str, int]] = {
    "CLIPTextConfig": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "T5Config": {"vocab_size": 512, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "Gemma2Config": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}


def random_adapter(config: RunConfig, device: torch.device, *, tiny: bool) -> DiffusersAdapter:
    """The adapter of a built-in recipe's checkpoint, which makes random weights on the device instead of loading."""
    backbone = config.backbone
    family: Any = adapter_class(backbone.kind)
    components = dict(planned_adapter(backbone).components)
    if tiny:
        components[family.network_component] = {**components[family.network_component], **TINY[backbone.kind]}

    class Random(family):  # type: ignore[misc]
        def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
            return _random_network(self, device, dtype)

    adapter: DiffusersAdapter = Random(backbone, components)
    return adapter


def _random_network(adapter: DiffusersAdapter, device: torch.device, dtype: torch.dtype) -> nn.Module:
    with quiet_imports():
        import diffusers

        network_class = getattr(diffusers, adapter.network_class)
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers tells which keys of a configuration it does not know
        torch.manual_seed(0)  # all roles start from the same weights
        network: nn.Module = network_class.from_config(dict(adapter.network_config))
    return nn.Module.to(network, device, dtype).eval().requires_grad_(False)


class RandomPrompts:
    """Embeddings in the shapes of a checkpoint's, a few of them, on the CPU as the cache's are.

    Args:
        adapter: Of the checkpoint.
        dtype: Of the embeddings.
    """

    def __init__(self, adapter: DiffusersAdapter, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(shape: Sequence[int], own: torch.dtype | None) -> Tensor:
            if own is not None:  # a mask
                return torch.ones(len(self), *shape, dtype=own)
            return torch.randn(len(self), *shape, generator=generator).to(dtype)

        shapes = adapter.prompt_shapes()
        self._all = Conditioning({name: drawn(one.shape, one.dtype) for name, one in shapes.items()})

    def __len__(self) -> int:
        return 8

    def batch(self, indices: Sequence[int]) -> Conditioning:
        return self._all.rows(torch.tensor(list(indices)))

    @property
    def null(self) -> Conditioning:
        return self.batch([0])


def random_encoder(
    class_name: str,
    config_name: str,
    settings: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    *,
    tiny: bool,
) -> nn.Module:
    """A text encoder of :data:`ENCODERS`."""
    with quiet_imports():
        import transformers
    config = getattr(transformers, config_name)(**{**settings, **(_TINY_ENCODERS[config_name] if tiny else {})})
    with torch.device(device), _default_dtype(dtype):
        encoder: nn.Module = getattr(transformers, class_name)(config)
    return encoder.eval().requires_grad_(False)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """The weights of an encoder in float32 would take more than many a card has."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
