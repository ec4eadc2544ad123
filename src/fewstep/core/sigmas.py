"""Laws of a random noise level, as data.

A law turns a raw draw, uniform in (0, 1), into a noise level, so every law consumes the same randomness and a
recipe that changes the law changes nothing else. Laws act after the time shift.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.bounds import Rate, Scale, Share


@dataclass(frozen=True)
class SigmaRange:
    """The noise levels that are drawn; a draw outside is clamped to it, not rescaled.

    Differs: nothing. The published runs clamp too, so 2 % of a uniform law's mass sits on either bound; and they do not
    clamp a level that is taken over from a query (:class:`SameAsQuery`).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    low: Share = 0.02
    high: Share = 0.98

    def __post_init__(self) -> None:
        _require(
            0.0 <= self.low < self.high <= 1.0, f"low {self.low} and high {self.high} must satisfy 0 <= low < high <= 1"
        )

    def clamp(self, sigma: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        return sigma.clamp(self.low, self.high)


@dataclass(frozen=True)
class Uniform:
    """sigma = low + (high - low) u."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["uniform"] = "uniform"
    low: Share = 0.0
    high: Share = 1.0

    def __post_init__(self) -> None:
        _require(
            0.0 <= self.low < self.high <= 1.0, f"low {self.low} and high {self.high} must satisfy 0 <= low < high <= 1"
        )

    def sigma(self, u: Float[Tensor, "*b"], *, query_sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class UniformBelowQuery:
    """sigma = u sigma_query: the probe stays at noise levels that the query has not resolved yet."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["uniform_below_query"] = "uniform_below_query"

    def sigma(self, u: Float[Tensor, "*b"], *, query_sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return u * query_sigma


@dataclass(frozen=True)
class SameAsQuery:
    """sigma = sigma_query: the probe differs from the query in its noise only.

    Nothing is drawn, so nothing is clamped: at the first anchor the probe is pure noise, as in the published code.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["same_as_query"] = "same_as_query"

    def sigma(self, u: Float[Tensor, "*b"], *, query_sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return query_sigma


@dataclass(frozen=True)
class LogitNormal:
    """sigma = sigmoid(mean + std n) with n standard normal, n = the normal quantile of u."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    law: Literal["logit_normal"] = "logit_normal"
    mean: Scale = 0.0
    std: Rate = 1.0

    def __post_init__(self) -> None:
        _require(self.std > 0, f"std {self.std} must be positive")

    def sigma(self, u: Float[Tensor, "*b"], *, query_sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


SigmaLaw = Uniform | UniformBelowQuery | SameAsQuery | LogitNormal


def level(
    law: SigmaLaw, u: Float[Tensor, "b"], *, query_sigma: Float[Tensor, "b"], within: SigmaRange
) -> Float[Tensor, "b"]:
    """The noise level of a law for a raw draw ``u``: clamped where it is drawn, as it is where it is the query's."""
    sigma = law.sigma(u, query_sigma=query_sigma)
    return sigma if isinstance(law, SameAsQuery) else within.clamp(sigma)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
