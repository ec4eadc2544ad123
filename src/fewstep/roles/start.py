"""Where the student starts when it is not the teacher: as another model, or as the teacher with a LoRA on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewstep.backbones.lora_source import LayerFactors
from fewstep.backbones.protocol import ModelAdapter
from fewstep.errors import ConfigError
from fewstep.roles.lora import product
from fewstep.roles.weights import StartFromLora, StartFromModel


@dataclass(frozen=True)
class StartWeights:
    """A student's first weights, held by the process that loads checkpoints.

    Attributes:
        weights: Of the other model; empty for a LoRA.
        factors: Of the LoRA by the network's layers; empty for a model.
        scale: Of the factors.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, LayerFactors] = field(default_factory=dict)
    scale: float = 1.0

    def over(self, teacher: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The student's weights by name, each made when it is asked for: no second network is held for a LoRA."""
        return self.weights or _Merged(teacher, self.factors, self.scale)

    def factor(self, name: str, fresh: Tensor, *, scaling: float | None) -> Tensor:
        """The first value of one low-rank factor.

            scaling B A = scale alpha / rank up down,  with fresh rows of A under zero columns of B where ranks differ

        Args:
            name: ``LAYER.lora_A.weight`` or ``LAYER.lora_B.weight``.
            fresh: What it would be without a start.
            scaling: The role's own factor on B A; None for a role that starts as the teacher with the same A.
        """
        layer, _, letter = name.removesuffix(".weight").rpartition(".lora_")
        own = self.factors.get(layer)
        if own is None or own.rank > (fresh.shape[0] if letter == "A" else fresh.shape[1]):
            return fresh
        if letter == "A":
            return torch.cat([own.down.view(own.rank, *fresh.shape[1:]), fresh[own.rank :]])
        if scaling is None:
            return fresh
        up = own.up.view(len(fresh), own.rank, *fresh.shape[2:]) * (self.scale * own.scaling / scaling)
        return torch.cat([up, fresh[:, own.rank :]], dim=1)


def require_room(start: StartWeights | None, network: nn.Module, role: str) -> None:
    """Raise ConfigError when the role's factors in ``network`` cannot hold the LoRA of a start."""
    factors = {} if start is None else start.factors
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    for layer, own in factors.items():
        place = shapes.get(f"{layer}.lora_A.{role}.weight")
        if place is None or own.bias is not None:
            raise ConfigError(
                f"student.init.lora changes the {'layer' if place is None else 'bias of'} {layer}, but the student's "
                "factors do not. Add it to student.weights.targets, or train all weights with "
                "student.weights={kind: full}."
            )
        if own.rank > place[0]:
            raise ConfigError(
                f"student.init.lora is of rank {own.rank}, but student.weights.rank is {place[0]}. "
                f"Set student.weights.rank={max(each.rank for each in factors.values())}, or train all weights with "
                "student.weights={kind: full}."
            )


def read_start(adapter: ModelAdapter, start: StartFromLora | StartFromModel | None) -> StartWeights | None:
    """Read where a student starts; None where it starts as the teacher.

    Raises:
        ConfigError: It is not found, or it was made for another architecture.
        CheckpointError: A file is damaged.
    """
    match start:
        case None:
            return None
        case StartFromLora():
            return StartWeights(factors=adapter.read_start(start.source), scale=start.scale)
        case StartFromModel():
            network = adapter.load_start(start.model, start.revision)
            return StartWeights(weights={name: p.detach() for name, p in network.named_parameters()})


class _Merged(Mapping[str, Tensor]):
    """Weights with factors added, in float32."""

    def __init__(self, weights: Mapping[str, Tensor], factors: Mapping[str, LayerFactors], scale: float) -> None:
        self._weights, self._factors, self._scale = weights, factors, scale

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[name]
        layer, _, kind = name.rpartition(".")
        own = self._factors.get(layer)
        scaling = self._scale * own.scaling if own is not None else 0.0
        if own is not None and kind == "weight":
            return weight + product(own.up, own.down, scaling=scaling, shape=weight.shape)
        if own is not None and own.bias is not None and kind == "bias":
            return weight + scaling * own.bias
        return weight

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
