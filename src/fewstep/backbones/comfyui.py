"""How ComfyUI knows a family: its names of layers in LoRA files, and the nodes that load and draw it.

The names are those that ComfyUI's own ``comfy/lora.py`` maps to the family's layers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_FACTOR = re.compile(r"^(?P<layer>.+)\.lora_(?P<letter>[AB])\.weight$")
_KOHYA = {"A": "lora_down", "B": "lora_up"}


@dataclass(frozen=True)
class ComfyUIFamily:
    """One family in ComfyUI.

    Attributes:
        prefix: Before every layer's name.
        further: Ends of names of layers that it maps beside those that take LoRA factors in a run.
        renamed: Patterns in diffusers' names of layers, and what takes their place, in order.
        kohya: Names of layers have underscores for dots, and their factors are ``lora_down`` and ``lora_up``.
        text_encoders: How many files the text encoders are; 0 where one checkpoint holds everything.
        text_type: What ComfyUI's loader of text encoders calls the family; the one of three files is not asked.
        latent: The node of the empty latents.
        noise_to_data: Noise levels are counted as noise over data, not as noise in the whole.
    """

    prefix: str
    further: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    kohya: bool = False
    text_encoders: int = 1
    text_type: str = ""
    latent: str = "EmptySD3LatentImage"
    noise_to_data: bool = False

    def named(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factors called ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``, under ComfyUI's names."""
        return {self._name(name): value for name, value in factors.items()}

    def sigmas(self, sigmas: Iterable[float]) -> list[float]:
        """A grid as ComfyUI counts it, with the final 0."""
        return [*(sigma / (1 - sigma) if self.noise_to_data else sigma for sigma in sigmas), 0.0]

    def _name(self, name: str) -> str:
        match = _FACTOR.match(name)
        assert match is not None, name
        layer = match["layer"]
        for pattern, replacement in self.renamed:
            layer = re.sub(pattern, replacement, layer)
        if not self.kohya:
            return f"{self.prefix}{layer}.lora_{match['letter']}.weight"
        return f"{self.prefix}{layer.replace('.', '_')}.{_KOHYA[match['letter']]}.weight"


UNET = ComfyUIFamily("lora_unet_", kohya=True, text_encoders=0, latent="EmptyLatentImage", noise_to_data=True)
"""Stable Diffusion 1, 2 and XL."""
