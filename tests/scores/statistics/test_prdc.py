import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.scores.statistics.prdc import neighbourhood_radii, prdc


def test_radius_is_the_distance_to_the_kth_other_picture() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbourhood_radii(features, k=2).tolist() == [3.0, 2.0, 3.0, 6.0]


def test_prdc_of_a_tiny_set_is_the_value_worked_by_hand() -> None:
    # radii with k = 1: real 0, 1, 10, 12 -> 1, 1, 2, 2; generated 0.5, 0.6, 5, 20 -> .1, .1, 4.4, 15
    real = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    generated = torch.tensor([[0.5], [0.6], [5.0], [20.0]])
    scores = prdc(real, generated, k=1)
    # 0.5 and 0.6 lie in the neighbourhoods of 0 and of 1; 5 and 20 in none
    assert scores.precision == 0.5
    assert scores.density == 1.0
    # only 0 and 1 have a generated picture within 1
    assert scores.coverage == 0.5
    # 1 lies within 4.4 of 5; 10 and 12 within 15 of 20; 0 in none
    assert scores.recall == 0.75


def test_prdc_of_a_set_with_itself_is_full() -> None:
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    scores = prdc(features, features)
    assert (scores.precision, scores.recall, scores.coverage) == (1.0, 1.0, 1.0)


def test_prdc_of_two_far_sets_is_empty() -> None:
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    scores = prdc(features, features + 1000)
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    collapsed = real.mean(0, keepdim=True).expand(60, 5)
    scores = prdc(real, collapsed)
    assert scores.precision == 1.0
    assert scores.recall == 0.0


def brute_force(real: torch.Tensor, generated: torch.Tensor, k: int) -> tuple[float, float, float, float]:
    """The definitions, pair by pair."""

    def radius(features: torch.Tensor, index: int) -> float:
        others = [float((features[index] - other).norm()) for j, other in enumerate(features) if j != index]
        return sorted(others)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    generated_radii = [radius(generated, j) for j in range(len(generated))]
    near = [[float((r - g).norm()) for g in generated] for r in real]
    rows, columns = range(len(real)), range(len(generated))
    return (
        sum(any(near[i][j] < real_radii[i] for i in rows) for j in columns) / len(generated),
        sum(any(near[i][j] < generated_radii[j] for j in columns) for i in rows) / len(real),
        sum(near[i][j] < real_radii[i] for i in rows for j in columns) / (k * len(generated)),
        sum(any(near[i][j] < real_radii[i] for j in columns) for i in rows) / len(real),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_equals_the_definitions_pair_by_pair(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    real = torch.randn(17, 3, generator=generator, dtype=torch.float64)
    generated = torch.randn(13, 3, generator=generator, dtype=torch.float64) * 1.5
    scores = prdc(real, generated, k=k)
    found = (scores.precision, scores.recall, scores.density, scores.coverage)
    assert found == pytest.approx(brute_force(real, generated, k))


def test_too_few_pictures_for_k_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 6 pictures"):
        prdc(torch.zeros(5, 2), torch.zeros(9, 2), k=5)
