"""A LoRA as the user names it, and what one adds to a layer."""

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from fewstep.bounds import Name, Place, Scale
from fewstep.section import Section


class LoraSource(Section):
    """A LoRA: where it is, and how much of it is used."""

    path: Place = Field(min_length=1, description="a safetensors file, a folder that holds one, or a repository id")
    file: Name | None = Field(default=None, description="which file of the folder or repository; None is the only one")
    scale: Scale = 1.0


@dataclass(frozen=True)
class LayerFactors:
    """What a LoRA adds to one layer: ``scaling up down`` to its weight, ``scaling bias`` to its bias.

    Attributes:
        up, down: Float32, with the layer's outputs and inputs as first and last axes; of a convolution with its kernel.
        scaling: The file's own: alpha over the rank.
    """

    up: Tensor
    down: Tensor
    scaling: float = 1.0
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])
