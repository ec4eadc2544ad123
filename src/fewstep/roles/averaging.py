"""Averages of weights: the student's exponential moving average, and implicit distribution alignment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ema_decay(update: int, limit: float) -> float:
    """Decay of the student's average at its ``update``-th update, 1 for the first.

    decay = min(limit, (1 + k) / (10 + k))                                              [eq:ema]
    """
    if update < 1:
        raise ValueError(f"update is {update}; the first update is 1")
    return min(limit, (1 + update) / (10 + update))


class ExponentialMovingAverage:
    """The student's average in float32, by parameter name.

    Args:
        parameters: The student's parameters by name; the average starts as a copy.
        decay: Limit of the decay.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], *, update: int) -> None:
        """Move the average towards ``parameters`` after their ``update``-th update."""
        shadow = [self.shadow[name] for name in parameters]
        values = [value.detach().float() for value in parameters.values()]
        torch._foreach_lerp_(shadow, values, 1.0 - ema_decay(update, self.decay))


@torch.no_grad()
def align(fake_score: Sequence[nn.Parameter], student: Sequence[nn.Parameter], *, decay: float) -> None:
    """Implicit distribution alignment: pull the fake score's weights towards the student's.

    fake <- decay fake + (1 - decay) student                                            [eq:ida]
    """
    torch._foreach_lerp_([p.data for p in fake_score], [p.data for p in student], 1.0 - decay)


@contextmanager
def swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a network other weights for a while, to draw with its average; its own come back bit for bit."""
    own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(own[name])
