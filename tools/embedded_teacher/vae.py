"""The demo's autoencoder: 32x32 pictures to 4x8x8 latents.

Two things in its training are for the teacher. The decoder reads latents with a little noise, because a sampled latent
is never exactly one of an encoded picture. And a linear head, which is dropped afterwards, has to tell the digit from
latents under the noise of the flow: a digit that is still visible there is one that the teacher seldom gets wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from fewstep.embedded.digits.prompts import NUM_DIGITS

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 32,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
NUM_LATENTS = 4 * 8 * 8
KL_WEIGHT = 3e-4
DIGIT_WEIGHT = 0.02
DECODER_NOISE = 0.1
HEAD_SIGMA = (0.35, 0.85)


def build_vae() -> AutoencoderKL:
    """Build the autoencoder with fresh weights."""
    return AutoencoderKL(**VAE_CONFIG)


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Map byte pixels to the [-1, 1] floats that the autoencoder reads."""
    return pixels.float() / 127.5 - 1


def input_to_pixels(values: Tensor) -> Tensor:
    """Map [-1, 1] floats to byte pixels, clamped and rounded as diffusers' image processor does."""
    return ((values / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def train_vae(
    pixels: Tensor,
    digits: Tensor,
    *,
    num_steps: int,
    batch: int,
    lr: float,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> AutoencoderKL:
    """Train the autoencoder on byte pixels and their digits, with a cosine learning rate."""
    torch.manual_seed(seed)
    vae, head = build_vae(), nn.Linear(NUM_LATENTS, NUM_DIGITS)
    optimiser = torch.optim.AdamW([*vae.parameters(), *head.parameters()], lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=num_steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        index = torch.randint(len(pixels), (batch,), generator=generator)
        losses = vae_losses(vae, head, pixels_to_input(pixels[index]), digits[index], generator)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(
            losses["squared"] + 0.1 * losses["absolute"] + KL_WEIGHT * losses["kl"] + DIGIT_WEIGHT * losses["digit"]
        )
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            report(step + 1, {"psnr": 10 * math.log10(4 / values["squared"]), **values})
    return vae.eval()


def vae_losses(
    vae: AutoencoderKL, head: nn.Module, target: Tensor, digits: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute squared and absolute error and KL, each per value of the picture, and the head's cross-entropy."""
    posterior = vae.encode(target).latent_dist
    mean = posterior.mean
    noise = torch.randn(mean.shape, generator=generator) * DECODER_NOISE * mean.std().detach()
    output = vae.decode(posterior.sample(generator) + noise).sample
    return {
        "squared": functional.mse_loss(output, target),
        "absolute": functional.l1_loss(output, target),
        "kl": posterior.kl().mean() / target[0].numel(),
        "digit": functional.cross_entropy(head(noised(mean, generator).flatten(1)), digits),
    }


def noised(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Standardise latents and bring each to a noise level of :data:`HEAD_SIGMA`, as the flow does."""
    low, high = HEAD_SIGMA
    sigma = low + (high - low) * torch.rand(len(latents), 1, 1, 1, generator=generator)
    x0 = (latents - latents.mean()) / latents.std()
    return (1 - sigma) * x0 + sigma * torch.randn(latents.shape, generator=generator)


@torch.no_grad()
def encode_means(vae: AutoencoderKL, pixels: Tensor, *, batch: int = 512) -> Tensor:
    """Encode byte pixels to unscaled posterior means."""
    return torch.cat([vae.encode(pixels_to_input(part)).latent_dist.mean for part in torch.split(pixels, batch)])


@torch.no_grad()
def decode_pixels(vae: AutoencoderKL, latents: Tensor, *, batch: int = 512) -> Tensor:
    """Decode scaled latents to byte pixels."""
    config = vae.config
    raw = latents / config.scaling_factor + config.shift_factor
    return torch.cat([input_to_pixels(vae.decode(part).sample) for part in torch.split(raw, batch)])


def store_latent_statistics(vae: AutoencoderKL, means: Tensor) -> None:
    """Measure the latents and store the shift and the scale that standardise them in the config."""
    vae.register_to_config(scaling_factor=1 / float(means.std()), shift_factor=float(means.mean()))


def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Measure the reconstruction in dB, through the posterior mean and byte rounding."""
    latents = (encode_means(vae, pixels) - vae.config.shift_factor) * vae.config.scaling_factor
    error = (decode_pixels(vae, latents).float() - pixels.float()).square().mean()
    return 10 * float(torch.log10(255**2 / error))
