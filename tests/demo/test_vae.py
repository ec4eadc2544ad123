"""The demo's autoencoder: pixel rounding and what its training does."""

import torch

from fewstep.demo import vae
from fewstep.demo.digits import BaseDigits, draw_pool


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(vae.input_to_pixels(vae.pixels_to_input(pixels)), pixels)


def test_autoencoder_turns_32_pixels_into_four_channels_of_eight() -> None:
    means = vae.encode_means(vae.build_vae(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert means.shape == (2, 4, 8, 8)


def test_training_improves_the_reconstruction() -> None:
    images = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = draw_pool(BaseDigits(images, torch.arange(4)), num_per_digit=7, seed=1).pixels
    psnr = []
    for num_steps in (1, 25):
        trained = vae.train_vae(pixels, num_steps=num_steps, batch=8, lr=3e-3, seed=0, report=lambda step, values: None)
        vae.store_latent_statistics(trained, vae.encode_means(trained, pixels))
        psnr.append(vae.psnr(trained, pixels))
    assert psnr[1] > psnr[0] + 3
