"""Noise is named by prompt and seed, and by nothing else."""

import torch

from fewstep.sampling import noise_batch, noise_for

SHAPE = (4, 8, 8)


def test_noise_of_a_picture_does_not_depend_on_its_neighbours() -> None:
    batch = noise_batch(["a", "b", "c"], [1, 2, 3], SHAPE)
    assert torch.equal(batch[1], noise_for("b", 2, SHAPE))


def test_noise_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = noise_for("a", 7, SHAPE)
    torch.manual_seed(2)
    assert torch.equal(first, noise_for("a", 7, SHAPE))


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    noise_for("a", 7, SHAPE)
    assert torch.equal(torch.rand(1), expected)


def test_another_seed_gives_other_noise() -> None:
    assert not torch.equal(noise_for("a", 7, SHAPE), noise_for("a", 8, SHAPE))


def test_another_prompt_gives_other_noise() -> None:
    assert not torch.equal(noise_for("a", 7, SHAPE), noise_for("b", 7, SHAPE))


def test_seed_and_prompt_are_not_confused() -> None:
    assert not torch.equal(noise_for("2", 1, SHAPE), noise_for("", 12, SHAPE))


def test_noise_of_a_name_never_changes() -> None:
    """Pictures of published seeds stay what they are."""
    expected = torch.tensor([-0.3300083, 0.2649843])
    torch.testing.assert_close(noise_for("a red handwritten three", 7, (2,)), expected, rtol=0, atol=1e-6)


def test_negative_and_huge_seeds_are_seeds() -> None:
    assert not torch.equal(noise_for("a", -1, SHAPE), noise_for("a", 2**70, SHAPE))


def test_noise_is_standard_normal() -> None:
    noise = noise_for("a", 0, (100_000,))
    # five standard errors
    assert abs(float(noise.mean())) < 5 / 100_000**0.5
    assert abs(float(noise.std()) - 1) < 5 / 200_000**0.5
