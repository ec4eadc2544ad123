"""Precision, recall, density and coverage: are the pictures inside the data, and is the data inside the pictures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.scores.statistics.features import Features, checked_pair


@dataclass(frozen=True)
class Prdc:
    """Four shares of pictures that lie in each other's neighbourhoods.

    Attributes:
        precision: Generated pictures that lie in the neighbourhood of some real one.
        recall: Real pictures that lie in the neighbourhood of some generated one.
        density: How many real neighbourhoods hold a generated picture, on the mean, over k; may exceed 1.
        coverage: Real pictures with a generated one in their own neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distance of every pair of rows, by differences: the product form loses small distances."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def neighbourhood_radii(features: Float[Tensor, "n d"], *, k: int) -> Float[Tensor, "n"]:
    """Distance of each picture to its ``k``-th nearest other picture of the same set."""
    # the picture itself is always among the nearest, at distance zero
    return _distances(features, features).kthvalue(k + 1, dim=1).values


def prdc(real: Features, generated: Features, *, k: int = 5) -> Prdc:
    """Precision and recall (improved, Kynkaanniemi 2019), density and coverage (Naeem 2020).

    A picture lies in a neighbourhood when its distance to the centre is strictly below the radius, so a collapsed
    set of equal pictures (radius zero) covers nothing.

    Args:
        real: Reference features.
        generated: Features of the pictures under test.
        k: Which neighbour sets the radius of a neighbourhood.

    Raises:
        ConfigError: Fewer than ``k + 1`` pictures, values that are not finite, or different widths.
    """
    real, generated = checked_pair(real, generated, at_least=k + 1)
    between = _distances(real, generated)
    in_real = between < neighbourhood_radii(real, k=k)[:, None]
    in_generated = between < neighbourhood_radii(generated, k=k)[None, :]
    return Prdc(
        precision=float(in_real.any(0).double().mean()),
        recall=float(in_generated.any(1).double().mean()),
        density=float(in_real.double().sum(0).mean() / k),
        coverage=float(in_real.any(1).double().mean()),
    )
