"""Frechet distance between the Gaussians fitted to two sets of features."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.scores.statistics.features import Features, checked_pair


def matrix_sqrt(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Symmetric square root of a positive semi-definite matrix; rounding below zero is clipped."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    return root


def gaussian_distance(
    mean_a: Float[Tensor, "d"],
    cov_a: Float[Tensor, "d d"],
    mean_b: Float[Tensor, "d"],
    cov_b: Float[Tensor, "d d"],
) -> float:
    """Squared 2-Wasserstein distance of two Gaussians.

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)

    The symmetric form has real eigenvalues by construction, so no imaginary part has to be dropped.
    """
    root = matrix_sqrt(cov_a)
    inner = root @ cov_b @ root
    cross = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_distance(real: Features, generated: Features) -> float:
    """Frechet distance (FD) of two feature sets, in float64 with unbiased covariances.

    Falls with the number of pictures even when nothing changes: compare only sets of equal size, and against the
    distance of a second real set (the floor).

    Raises:
        ConfigError: Fewer than two pictures, values that are not finite, or different widths.
    """
    real, generated = checked_pair(real, generated, at_least=2)
    return gaussian_distance(real.mean(0), real.mT.cov(), generated.mean(0), generated.mT.cov())
