"""Figures of the student's pictures against the teacher's, against what was done to them."""

import pytest
import torch
from torch import Tensor

from fewstep.health.latents import LatentStatistics, latent_figures

SEEDS = 2


def pictures(*shape: int) -> Tensor:
    shape = shape or (8, 4, 16, 16)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def told(x0: Tensor, teacher: Tensor) -> dict[str, float]:
    found = latent_figures(x0, LatentStatistics.of(teacher, seeds=SEEDS), seeds=SEEDS)
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("shape", [(8, 4, 16, 16), (8, 3, 2, 8, 8), (8, 64, 6)], ids=["picture", "video", "packed"])
def test_the_teachers_own_pictures_have_no_cast_and_its_contrast_and_diversity(shape: tuple[int, ...]) -> None:
    found = told(pictures(*shape), pictures(*shape))
    assert found["cast"] == 0.0
    assert found["contrast"] == found["diversity"] == 1.0
    assert found["saturation"] == pytest.approx(0.01, abs=0.003)  # the two tails that are cut off, in whole values


@pytest.mark.parametrize(("shape", "channel"), [((8, 4, 16, 16), (slice(None), 2)), ((8, 64, 6), (..., 2))])
def test_a_constant_on_one_channel_is_a_cast_of_so_many_of_its_standard_deviations(
    shape: tuple[int, ...], channel: tuple[object, ...]
) -> None:
    teacher = 3.0 * pictures(*shape)
    shifted = teacher.clone()
    shifted[channel] += 0.9 * teacher[channel].std(correction=0)  # type: ignore[index]
    found = told(shifted, teacher)
    assert found["cast"] == pytest.approx(0.9, rel=1e-4)
    assert found["contrast"] == pytest.approx(1.0, rel=1e-4)


def test_stretched_pictures_have_that_contrast_and_lie_beyond_the_teachers_range() -> None:
    found = told(1.5 * pictures(), pictures())
    assert found["contrast"] == pytest.approx(1.5, rel=1e-4)
    # of a normal distribution, beyond 2.576 / 1.5 standard deviations
    assert found["saturation"] == pytest.approx(0.086, abs=0.01)


@pytest.mark.parametrize("kept", [0.0, 0.25, 1.0])
def test_diversity_is_what_is_left_of_the_difference_between_seeds(kept: float) -> None:
    teacher = pictures()
    pairs = teacher.reshape(4, SEEDS, *teacher.shape[1:])
    mean = pairs.mean(1, keepdim=True)
    drawn = (mean + kept * (pairs - mean)).reshape(teacher.shape)
    assert told(drawn, teacher)["diversity"] == pytest.approx(kept, abs=1e-5)
