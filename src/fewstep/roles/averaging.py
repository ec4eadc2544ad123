"""Averages of weights: the student's exponential moving average, and implicit distribution alignment."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from fewstep.distributed.sharding import local, whole
from fewstep.roles.lora import product
from fewstep.roles.quantised import quantised_layers
from fewstep.roles.role import Role
from fewstep.roles.weights import LoraWeights


def ema_decay(update: int, limit: float) -> float:
    """Decay of the student's average at its ``update``-th update, 1 for the first.

    decay = min(limit, (1 + k) / (10 + k))                                              [eq:ema]
    """
    if update < 1:
        raise ValueError(f"update is {update}; the first update is 1")
    return min(limit, (1 + update) / (10 + update))


class ExponentialMovingAverage:
    """The student's average in float32, by parameter name, spread over the processes as the student is.

    Args:
        parameters: The student's trained parameters by name; the average starts as a copy.
        decay: Limit of the decay.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], *, update: int) -> None:
        """Move the average towards ``parameters`` after their ``update``-th update."""
        shadow = [local(self.shadow[name]) for name in parameters]
        values = [local(value.detach()).float() for value in parameters.values()]
        torch._foreach_lerp_(shadow, values, 1.0 - ema_decay(update, self.decay))


@torch.no_grad()
def align(fake_score: Mapping[str, Tensor], student: Mapping[str, Tensor], *, decay: float) -> None:
    """Implicit distribution alignment: pull the fake score's weights towards the student's, name by name.

    fake <- decay fake + (1 - decay) student                                            [eq:ida]
    """
    ours = [local(value.detach()) for value in fake_score.values()]
    torch._foreach_lerp_(ours, [local(student[name].detach()) for name in fake_score], 1.0 - decay)


@torch.no_grad()
def align_to_merged(fake_score: Mapping[str, Tensor], student: Role, weights: LoraWeights, *, decay: float) -> None:
    """Implicit distribution alignment of a full fake score with a student of low-rank factors.

    fake <- decay fake + (1 - decay) (base + scaling B A)                              [eq:ida]

    One weight at a time: the merged student is never held whole.
    """
    for name, value in _merged_weights(student, weights, only=fake_score):
        ours = local(fake_score[name].detach())
        ours.lerp_(value.to(ours.device), 1.0 - decay)  # one of the two may be offloaded


def _merged_weights(student: Role, weights: LoraWeights, *, only: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """This process's part of ``base + scaling B A`` in float32, by the plain network's names, one after the other.

    Every process has to go through all of it: A is gathered.
    """
    factors = student.weights()
    base = {name.replace(".base_layer.", "."): value for name, value in student.network.named_parameters()}
    quantised = {f"{name}.weight": layer for name, layer in quantised_layers(student.network)}
    for name in only:
        wide = quantised[name].widened(torch.float32) if name in quantised else base[name]
        value = local(wide.detach()).float()
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in factors:
            factor_a = whole(factors[f"{layer}.lora_A.weight"].detach())
            factor_b = local(factors[f"{layer}.lora_B.weight"].detach())
            value = value + product(factor_b, factor_a, scaling=weights.scaling, shape=value.shape)
        yield name, value


@contextmanager
def swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a network other weights for a while, to draw with its average; its own come back bit for bit."""
    own = {name: local(parameter.detach()).clone() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        local(parameter.detach()).copy_(local(values[name]))
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            local(parameter.detach()).copy_(own[name])
