"""A frozen base in 8 or 4 bits: the linear layers of its blocks, stored by bitsandbytes and widened at each use.

bitsandbytes has layers of its own. Three of their habits do not go with training, so only its storage is used:

* in eval mode, which every role is in, the 4-bit layer repacks its weight for the CPU in a forward without gradients;
  a later backward then ends at that layer, without an error
* the 8-bit layer also rounds what goes in, through float16: its answer is not the function whose gradient it gives
* with its threshold for outliers, a sample's answer depends on the other samples of its batch

Here ``x W'^T`` is computed with one and the same ``W'``, the widened weight, by every role, forward and backward.
"""

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.distributed.world import World
from fewstep.errors import ConfigError
from fewstep.roles.lora import base_name
from fewstep.roles.weights import Base, LoraWeights

# values of a 4-bit weight that share one scale
_BLOCK = 64
DEVICES = ("cpu", "cuda")
"""Kinds that bitsandbytes serves."""


def require_quantised(factors: Mapping[str, LoraWeights], world: World) -> None:
    """Check, before anything is loaded, that this run can hold the base of its factors as they ask.

    Args:
        factors: The roles that train low-rank factors.
        world: The processes of the run.

    Raises:
        ConfigError: bitsandbytes is missing, or there are several processes, or the device is none that it serves.
    """
    said = next((f"{role}.weights.base is {w.base}" for role, w in factors.items() if w.base != "compute"), None)
    if said is None:
        return
    if world.size > 1:
        raise ConfigError(
            f"{said}, which only one process can train on, but {world.size} were started; start one, or set it to "
            "compute, which is cut up over the processes."
        )
    if world.device.type not in DEVICES:
        raise ConfigError(
            f"{said}, which bitsandbytes computes on {' and '.join(DEVICES)}, but this run's device is "
            f"{world.device.type}; set it to compute, or set parallel.device=cpu."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{said}, and holding it needs the package bitsandbytes; install it with: pip install 'fewstep[quantised]'."
        )


class QuantisedLinear(nn.Linear):
    """A linear layer with a frozen weight in few bits, empty until :meth:`store`; its bias stays as it was.

    Args:
        layer: Gives sizes and the bias.
        kind: ``int8``, with a scale per row, or ``nf4``, with a scale per 64 values.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, kind: Base) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        # buffers: nothing that walks over parameters may train them, cast them or fill them by shape
        self.register_buffer("weight", torch.empty(0, dtype=torch.int8 if kind == "int8" else torch.uint8))
        self.register_buffer("scale", torch.empty(0))
        self.bias = layer.bias

    @torch.no_grad()
    def store(self, weight: Tensor) -> None:
        """Round a float32 weight into the layer, on the weight's device."""
        import bitsandbytes.functional as bits

        if self.kind == "int8":
            self.weight, self.scale, _ = bits.int8_vectorwise_quant(weight.half())
        else:
            self.weight, state = bits.quantize_4bit(weight.contiguous(), blocksize=_BLOCK, quant_type="nf4")
            self.scale = state.absmax

    @torch.no_grad()
    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight that the layer computes with."""
        import bitsandbytes.functional as bits

        wide: Tensor
        if self.kind == "int8":
            wide = bits.int8_vectorwise_dequant(self.weight, self.scale).to(dtype)
            return wide
        # as one row: on the CPU, rows that 64 does not divide would be widened with the scales of other values
        row = torch.Size((self.out_features * self.in_features,))
        state = bits.QuantState(self.scale, shape=row, dtype=dtype, blocksize=_BLOCK, quant_type="nf4")
        wide = bits.dequantize_4bit(self.weight, state).reshape(self.out_features, self.in_features)
        return wide

    def forward(self, x: Tensor) -> Tensor:
        """``x W'^T + bias``; the widened weight is gone afterwards and made again in the backward."""
        answer: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return answer


class _Product(torch.autograd.Function):
    """A product whose backward needs no copy of the wide weight from the forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.widened(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.widened(gradient.dtype), None


def empty_blocks(network: nn.Module, block_classes: Collection[str], kind: Base) -> None:
    """Replace the linear layers of a network's blocks by empty ones in few bits, in place.

    What lies outside of the blocks (embedders, the last layer) is small and matters more, and stays as it is.
    """
    blocks = [module for module in network.modules() if type(module).__name__ in block_classes]
    for block in blocks:
        for name, layer in list(block.named_modules()):
            if type(layer) is nn.Linear:
                block.set_submodule(name, QuantisedLinear(layer, kind))


def store_weights(network: nn.Module, weights: Mapping[str, Tensor], *, device: torch.device) -> None:
    """Round the checkpoint's weights into the empty layers, one layer on the device at a time.

    Args:
        weights: The plain network's parameters by name.
    """
    for name, layer in quantised_layers(network):
        layer.store(weights[f"{name}.weight"].to(device, torch.float32))


def quantised_layers(network: nn.Module) -> Iterator[tuple[str, QuantisedLinear]]:
    """The layers in few bits, by the names they have without factors."""
    for name, module in network.named_modules():
        if isinstance(module, QuantisedLinear):
            yield base_name(f"{name}.").removesuffix("."), module
