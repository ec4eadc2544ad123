import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.scores.statistics.diversity import histogram, total_variation, within_prompt_diversity


def test_diversity_is_the_mean_over_prompts_of_the_mean_distance() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    prompts = torch.tensor([0, 0, 1, 1, 1])
    # prompt 0: 5; prompt 1: (1 + 0 + 1) / 3
    assert within_prompt_diversity(features, prompts) == pytest.approx((5 + 2 / 3) / 2)


def test_diversity_ignores_how_far_prompts_lie_apart() -> None:
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prompts = torch.arange(20) % 2
    moved = features + 100 * prompts[:, None]
    assert within_prompt_diversity(moved, prompts) == pytest.approx(within_prompt_diversity(features, prompts))


def test_diversity_of_a_prompt_with_one_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match="Prompt number 7 has one picture"):
        within_prompt_diversity(torch.zeros(3, 2), torch.tensor([1, 1, 7]))


def test_histogram_counts_choices_that_never_occur() -> None:
    assert histogram(torch.tensor([0, 0, 2, 0]), num_choices=4).tolist() == [0.75, 0.0, 0.25, 0.0]


def test_total_variation_is_the_share_that_would_have_to_change() -> None:
    assert total_variation(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])) == pytest.approx(0.5)
