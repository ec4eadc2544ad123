import numpy as np
import pytest
import scipy.linalg
import torch

from fewstep.errors import ConfigError
from fewstep.scores.statistics.frechet import frechet_distance, gaussian_distance, matrix_sqrt


def draw(count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + mixing[0]


def reference_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook form, with the square root of the (not symmetric) product of the covariances."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * cross))


def test_frechet_distance_equals_the_sqrtm_form() -> None:
    a, b = draw(200, 12, 0), draw(150, 12, 1)
    # rtol: sqrtm of a product that is not symmetric loses about 1e-8
    assert frechet_distance(a, b) == pytest.approx(reference_distance(a.numpy(), b.numpy()), rel=1e-7)


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form() -> None:
    stds_a, stds_b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 1.0, 0.5]).double()
    shift = torch.tensor([1.0, 0.0, -2.0]).double()
    distance = gaussian_distance(torch.zeros(3).double(), stds_a.square().diag(), shift, stds_b.square().diag())
    # |shift|^2 = 5 and (1-3)^2 + (2-1)^2 + 0 = 5
    assert distance == pytest.approx(10.0, rel=1e-12)


def test_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    features = draw(100, 8, 2)
    # abs: eight square roots of eigenvalues of order 10, each with a relative error of 1e-8 near zero
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_frechet_distance_stays_real_when_a_covariance_is_singular() -> None:
    features = draw(50, 6, 3)
    flat = features.clone()
    flat[:, 0] = 1.0
    expected = reference_distance(flat.numpy(), features.numpy())
    # abs: scipy's sqrtm of a singular matrix is accurate to about the root of the rounding error
    assert frechet_distance(flat, features) == pytest.approx(expected, abs=1e-4)


def test_frechet_distance_of_float32_features_is_computed_in_float64() -> None:
    features = draw(300, 8, 4) + 1000
    single = features.float()
    assert frechet_distance(single, draw(300, 8, 5)) == frechet_distance(single.double(), draw(300, 8, 5))


def test_matrix_sqrt_squares_back() -> None:
    matrix = draw(20, 5, 6).T.cov()
    torch.testing.assert_close(matrix_sqrt(matrix) @ matrix_sqrt(matrix), matrix)


def test_one_picture_is_refused_with_the_shape() -> None:
    with pytest.raises(ConfigError, match=r"real features have shape \(1, 4\).*at least 2 pictures"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(5, 4))


def test_features_that_are_not_finite_are_refused() -> None:
    broken = torch.ones(5, 4)
    broken[2, 1] = float("nan")
    with pytest.raises(ConfigError, match="generated features hold values that are not finite"):
        frechet_distance(torch.ones(5, 4), broken)


def test_features_of_two_extractors_are_refused() -> None:
    with pytest.raises(ConfigError, match="real features have 4 columns and the generated ones 3"):
        frechet_distance(torch.ones(5, 4), torch.ones(5, 3))
