"""LoRA files for tiny pipelines, in the layouts that people have."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RANK = 2
ALPHA = 3.0
Factors = dict[str, tuple[Tensor, Tensor]]
"""By layer: what is added is ``up down``, before any scale."""


def layers_of(network: nn.Module, endings: Iterable[str]) -> list[str]:
    """The first two layers of each ending."""
    names = [name for name, _ in network.named_modules()]
    return [name for ending in endings for name in [n for n in names if n.endswith(ending)][:2]]


def factors(network: nn.Module, layers: Iterable[str], *, seed: int = 0) -> Factors:
    """Random factors for layers, linear or convolutional."""
    generator = torch.Generator().manual_seed(seed)
    weights = dict(network.named_parameters())
    made = {}
    for layer in layers:
        shape = weights[f"{layer}.weight"].shape
        up = torch.randn(shape[0], RANK, *[1] * len(shape[2:]), generator=generator)
        made[layer] = (up, torch.randn(RANK, *shape[1:], generator=generator))
    return made


def added(weight: Tensor, pair: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """A layer's weight after the merge."""
    return weight + scale * (pair[0].flatten(1) @ pair[1].flatten(1)).view(weight.shape)


def diffusers_file(path: Path, parts: dict[str, Factors]) -> Path:
    """As diffusers' training scripts write it: ``unet.LAYER.lora_A.weight``."""
    return _save(path, {f"{part}.{name}": v for part, own in parts.items() for name, v in _peft(own).items()})


def old_diffusers_file(path: Path, part: str, own: Factors) -> Path:
    """As diffusers wrote it before peft: ``unet.ATTENTION.processor.to_q_lora.down.weight``."""
    tensors = {}
    for layer, (up, down) in own.items():
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        tensors[f"{part}.{attention}.processor.{projection}_lora.up.weight"] = up
        tensors[f"{part}.{attention}.processor.{projection}_lora.down.weight"] = down
    return _save(path, tensors)


def peft_folder(folder: Path, own: Factors, **config: Any) -> Path:
    """As ``PeftModel.save_pretrained`` writes it: names of the bare network, the scale in a file beside it."""
    folder.mkdir()
    _save(folder / "adapter_model.safetensors", {f"base_model.model.{name}": v for name, v in _peft(own).items()})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, **config}))
    return folder


def kohya_file(path: Path, parts: dict[str, Factors], *, alpha: float = ALPHA) -> Path:
    """As kohya's scripts write it: ``lora_unet_LAYER_WITH_UNDERSCORES.lora_down.weight`` and an alpha for each."""
    tensors = {}
    for prefix, own in parts.items():
        for layer, (up, down) in own.items():
            name = f"{prefix}_{layer.replace('.', '_')}"
            tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return _save(path, tensors)


def _peft(own: Factors) -> dict[str, Tensor]:
    ups = {f"{layer}.lora_B.weight": up for layer, (up, _) in own.items()}
    return ups | {f"{layer}.lora_A.weight": down for layer, (_, down) in own.items()}


def _save(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}, path)
    return path
