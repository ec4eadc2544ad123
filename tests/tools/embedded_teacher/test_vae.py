"""The demo's autoencoder: pixel rounding and what its training does."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from tools.embedded_teacher import vae
from tools.embedded_teacher.pictures import BaseDigits, DigitImages, draw_pool


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(vae.input_to_pixels(vae.pixels_to_input(pixels)), pixels)


def test_autoencoder_turns_32_pixels_into_four_channels_of_eight() -> None:
    means = vae.encode_means(vae.build_vae(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert means.shape == (2, 4, 8, 8)


@pytest.fixture
def pool() -> DigitImages:
    images = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    return draw_pool(BaseDigits(images, torch.arange(4)), num_per_digit=7, seed=1)


def train(pool: DigitImages, num_steps: int) -> AutoencoderKL:
    return vae.train_vae(
        pool.pixels, pool.digits, num_steps=num_steps, batch=8, lr=3e-3, seed=0, report=lambda step, values: None
    )


def test_training_improves_the_reconstruction(pool: DigitImages) -> None:
    psnr = []
    for num_steps in (1, 25):
        trained = train(pool, num_steps)
        vae.store_latent_statistics(trained, vae.encode_means(trained, pool.pixels))
        psnr.append(vae.psnr(trained, pool.pixels))
    assert psnr[1] > psnr[0] + 3


def test_training_shows_the_digit_in_the_latents(pool: DigitImages, monkeypatch: pytest.MonkeyPatch) -> None:
    def separation() -> float:
        means = vae.encode_means(train(pool, 25), pool.pixels).flatten(1)
        centres = torch.stack([means[pool.digits == digit].mean(0) for digit in range(4)])
        return float(centres.var(0).mean() / (means - centres[pool.digits]).var(0).mean())

    with_head = separation()
    monkeypatch.setattr(vae, "DIGIT_WEIGHT", 0.0)
    assert with_head > separation()


def test_the_head_reads_standardised_latents_at_the_stated_noise_levels() -> None:
    latents = 5 + 3 * torch.randn(4000, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noised = vae.noised(latents, torch.Generator().manual_seed(1))
    assert float(noised.mean()) == pytest.approx(0.0, abs=0.01)
    # the variance of (1 - sigma) x0 + sigma noise over uniform sigma in (.35, .85): E[(1 - sigma)^2 + sigma^2]
    assert float(noised.var()) == pytest.approx(0.5617, abs=0.01)


def test_the_losses_are_those_of_the_picture_and_of_its_digit(pool: DigitImages) -> None:
    head = nn.Linear(vae.NUM_LATENTS, 10)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    target = vae.pixels_to_input(pool.pixels)
    losses = vae.vae_losses(vae.build_vae(), head, target, pool.digits, torch.Generator().manual_seed(0))
    # a head that knows nothing has the entropy of ten equal choices
    assert float(losses["digit"].detach()) == pytest.approx(2.302585, rel=1e-5)
    assert float(losses["squared"].detach()) >= float(losses["absolute"].detach()) ** 2
