"""Squared maximum mean discrepancies: the kernel distance, under a cubic kernel, and CMMD's, under a Gaussian one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.statistics.features import Features, checked_pair

_CMMD_WIDTH = 10.0
_SCALE = 1000.0


def _polynomial_kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Similarity ``(a . b / d + 1)^3`` of every pair of rows."""
    return (a @ b.mT / a.shape[1] + 1) ** 3


def _mean_over_pairs(kernel: Float[Tensor, "n n"], strata: Int[Tensor, "n"]) -> Tensor:
    """Expected similarity of two independent pictures of one law, from all pairs of different pictures.

    With strata it is the law whose strata have the shares found here: pairs within a stratum (without the picture
    itself) and pairs between strata are averaged apart, then weighted by how often two independent pictures would
    form them.
    """
    members = torch.nn.functional.one_hot(torch.unique(strata, return_inverse=True)[1]).to(kernel)
    counts = members.sum(0)
    sums = members.mT @ kernel @ members - torch.diag(members.mT @ kernel.diagonal())
    pairs = counts[:, None] * counts[None, :] - counts.diag()
    shares = counts / counts.sum()
    return (shares[:, None] * shares[None, :] * sums / pairs).sum()


def kernel_distance(
    real: Features,
    generated: Features,
    *,
    real_strata: Int[Tensor, "n"] | None = None,
    generated_strata: Int[Tensor, "m"] | None = None,
) -> float:
    """Kernel distance (KD) times 1000: unbiased MMD^2 over all pairs.

        1000 (E k(r, r') + E k(g, g') - 2 E k(r, g))

    Unbiased, so it is about zero, and may be slightly negative, for two sets of one law. Uses the full sets instead
    of random subsets: no draw, and the smallest variance these pictures allow.

    A set that holds each prompt equally often is not a set of independent pictures: two of its pictures share a
    prompt too rarely, and the plain estimate falls below zero. Pass the prompts as strata to correct that.

    Args:
        real: Reference features.
        generated: Features of the pictures under test.
        real_strata: The prompt of each reference picture, as a number; None when they were drawn independently.
        generated_strata: The prompt of each picture under test.

    Raises:
        ConfigError: Fewer than two pictures in all or in a stratum, values that are not finite, or different widths.
    """
    real, generated = checked_pair(real, generated, at_least=2)
    among_real = _mean_over_pairs(_polynomial_kernel(real, real), _checked(real_strata, real))
    among_generated = _mean_over_pairs(_polynomial_kernel(generated, generated), _checked(generated_strata, generated))
    return _SCALE * float(among_real + among_generated - 2 * _polynomial_kernel(real, generated).mean())


def kernel_distance_of_subsets(
    real: Features, generated: Features, *, subsets: Sequence[tuple[Tensor, Tensor]]
) -> float:
    """The plain estimate of :func:`kernel_distance`, averaged over subsets, as the KID of its paper is.

    Args:
        real: Reference features.
        generated: Features of the pictures under test.
        subsets: The rows of each set that are compared with each other; no row twice.

    Raises:
        ConfigError: Fewer than two pictures, values that are not finite, or different widths.
    """
    checked_pair(real, generated, at_least=2)
    distances = [kernel_distance(real[some], generated[others]) for some, others in subsets]
    return sum(distances) / len(distances)


def _checked(strata: Int[Tensor, "n"] | None, features: Float[Tensor, "n d"]) -> Int[Tensor, "n"]:
    if strata is None:
        return torch.zeros(len(features), dtype=torch.long)
    smallest = int(torch.unique(strata, return_counts=True)[1].min())
    if smallest < 2:
        raise ConfigError("A prompt has a single picture; the kernel distance by prompts needs at least two of each.")
    return strata


def mean_discrepancy(real: Features, generated: Features) -> float:
    """Squared maximum mean discrepancy under a Gaussian kernel of width 10, times 1000.

    The biased estimate of the paper: pairs of a picture with itself count.

    Raises:
        ConfigError: A set is empty, not finite, or the two have different widths.
    """
    real, generated = checked_pair(real, generated, at_least=1)
    value = _mean_kernel(real, real) + _mean_kernel(generated, generated) - 2 * _mean_kernel(real, generated)
    return _SCALE * float(value)


def _mean_kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Tensor:
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.mT
    return torch.exp(squared.clamp(min=0) / (-2 * _CMMD_WIDTH**2)).mean()
