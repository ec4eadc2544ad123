"""What an adapter does with its checkpoint, in words for people."""

import re
from collections.abc import Sequence

import torch

from fewstep.backbones.protocol import BackboneConfig, ModelAdapter


def schedule(adapter: ModelAdapter, levels: Sequence[float]) -> str:
    """What the adapter's clock makes of levels."""
    sigmas = adapter.to_sigma(torch.tensor(list(levels), dtype=torch.float32)).tolist()
    return f"{_numbers(levels)} becomes sigma {_numbers(sigmas)}"


def lora_targets(adapter: ModelAdapter) -> list[str]:
    """The ends of the names of the layers that take LoRA factors, with ``*`` for the numbers of blocks."""
    return list(dict.fromkeys(re.sub(r"(?<=blocks)\.\d+\.", ".*.", name) for name in adapter.lora_targets))


def guidance(config: BackboneConfig) -> str:
    """Whether the teacher gives terms a direction of guidance to follow, and why not."""
    reason = config.without_guidance()
    if reason is None:
        return "the teacher gives a direction: recipes may have ca, or a guided dm"
    return f"the teacher gives no direction, so recipes go without ca ({reason})"


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"
