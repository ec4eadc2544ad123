import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.scores.statistics.kernel import kernel_distance


def test_kernel_distance_of_a_tiny_set_is_the_value_worked_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0]])
    generated = torch.tensor([[1.0], [2.0]])
    # k(a, b) = (a b + 1)^3: within real k(0, 1) = 1; within generated k(1, 2) = 27;
    # between: k(0, 1) = 1, k(0, 2) = 1, k(1, 1) = 8, k(1, 2) = 27, mean 9.25
    assert kernel_distance(real, generated) == pytest.approx(1000 * (1 + 27 - 2 * 9.25))


def test_kernel_distance_divides_the_product_by_the_width() -> None:
    real = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    generated = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    # k = (2 / 2 + 1)^3 = 8 within real, 1 within generated and between
    assert kernel_distance(real, generated) == pytest.approx(1000 * (8 + 1 - 2))


def test_kernel_distance_is_unbiased_for_two_sets_of_one_law() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor(
        [
            kernel_distance(torch.randn(40, 4, generator=generator), torch.randn(40, 4, generator=generator))
            for _ in range(200)
        ]
    )
    # a biased estimate (with the diagonal) would sit at about 1000 (E k(x,x) - E k(x,y)) 2 / 40 = 330
    error = values.std() / 200**0.5
    assert abs(values.mean()) < 4 * error < 60


def stratified(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Four pictures of each of ten prompts that lie far apart."""
    strata = torch.arange(40) % 10
    centres = torch.nn.functional.one_hot(strata, 10) * 3.0
    return centres + torch.randn(40, 10, generator=generator), strata


def test_kernel_distance_is_unbiased_for_sets_with_each_prompt_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, by_prompt = [], []
    for _ in range(200):
        (a, strata), (b, _) = stratified(generator), stratified(generator)
        plain.append(kernel_distance(a, b))
        by_prompt.append(kernel_distance(a, b, real_strata=strata, generated_strata=strata))
    values = torch.tensor(by_prompt)
    error = values.std() / 200**0.5
    assert abs(values.mean()) < 4 * error
    # without the prompts the estimate is below zero by far more than chance
    assert torch.tensor(plain).mean() < -20 * error


def test_one_stratum_is_the_plain_kernel_distance() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(12, 3, generator=generator), torch.randn(9, 3, generator=generator)
    one = kernel_distance(a, b, real_strata=torch.full((12,), 4), generated_strata=torch.full((9,), 7))
    assert one == pytest.approx(kernel_distance(a, b), rel=1e-12)


def test_a_stratum_with_one_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least two of each"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(3, 2), real_strata=torch.tensor([0, 0, 1]))
