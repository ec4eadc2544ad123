"""The autoencoder of ``scenes``: 48x48 pictures to 12x12 latents.

Two things in its training are for the teacher. The decoder reads latents with a little noise, because a sampled latent
is never exactly one of an encoded picture. And a small head, dropped afterwards, has to tell from noisy latents which
object covers each cell: what is still visible under noise the teacher seldom gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from fewstep.embedded.scenes.detector import CELL
from tools.embedded_teacher.vae import input_to_pixels, pixels_to_input

CHANNELS = 8
CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 64),
    "layers_per_block": 1,
    "latent_channels": CHANNELS,
    "norm_num_groups": 8,
    "sample_size": 48,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
}
KL_WEIGHT = 1e-3
CELL_WEIGHT = 0.05
DECODER_NOISE = 0.1
HEAD_SIGMA = (0.2, 0.8)


def build_autoencoder() -> AutoencoderKL:
    """Build it with fresh weights."""
    return AutoencoderKL(**CONFIG)


class CellHead(nn.Sequential):
    """What covers each cell, from latents: class logits ``(b, classes, 12, 12)``."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv2d(CHANNELS, 96, 3, padding=1), nn.GELU(), nn.Conv2d(96, classes, 3, padding=1))


def losses(
    vae: AutoencoderKL, head: CellHead, pixels: Tensor, cells: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute the terms for pictures in [-1, 1] ``(b, 3, h, w)`` and the classes of their cells ``(b, h/4, w/4)``."""
    posterior = vae.encode(pixels).latent_dist
    mean, scale = posterior.mean.float(), posterior.std.float()
    spread = mean.detach().std()
    latents = mean + scale * torch.randn(mean.shape, generator=generator)
    read = latents + DECODER_NOISE * spread * torch.randn(mean.shape, generator=generator)
    error = vae.decode(read).sample.float() - pixels
    low, high = HEAD_SIGMA
    sigma = low + (high - low) * torch.rand(len(mean), 1, 1, 1, generator=generator)
    noisy = (1 - sigma) * mean / spread + sigma * torch.randn(mean.shape, generator=generator)
    return {
        "squared": error.square().mean(),
        "absolute": error.abs().mean(),
        "kl": 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).mean(),
        "cells": functional.cross_entropy(head(noisy).float(), cells),
    }


def train_autoencoder(
    pixels: Tensor,
    cells: Tensor,
    *,
    classes: int,
    num_steps: int,
    batch: int,
    lr: float,
    seed: int,
    compiled: bool,
    report: Callable[[int, dict[str, float]], None],
) -> AutoencoderKL:
    """Train on byte pixels ``(n, 3, 48, 48)`` and the class of each cell ``(n, 12, 12)``, with a cosine learning rate.

    Four fifths of the steps see quarters of twice as many pictures: what a cell holds is decided nearby.
    """
    torch.manual_seed(seed)
    vae, head = build_autoencoder(), CellHead(classes)
    vae.to(memory_format=torch.channels_last)
    if compiled:
        # not the decoder: compiled for this format in bf16 it gave pictures that did not follow their latents
        vae.encoder.compile(dynamic=False)
    optimiser = torch.optim.AdamW([*vae.parameters(), *head.parameters()], lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=num_steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        whole = step % 5 == 0 or step > 0.9 * num_steps
        index = torch.randint(len(pixels), (batch if whole else 3 * batch,), generator=generator)
        shown, labels = pixels[index], cells[index]
        if not whole:
            x, y = (int(torch.randint(0, 7, (), generator=generator)) for _ in range(2))
            shown = shown[:, :, CELL * y : CELL * (y + 6), CELL * x : CELL * (x + 6)]
            labels = labels[:, y : y + 6, x : x + 6]
        with torch.autocast("cpu", torch.bfloat16):
            found = losses(
                vae,
                head,
                pixels_to_input(shown).contiguous(memory_format=torch.channels_last),
                labels.long(),
                generator,
            )
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(
            found["squared"] + 0.2 * found["absolute"] + KL_WEIGHT * found["kl"] + CELL_WEIGHT * found["cells"]
        )
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == num_steps - 1:
            report(step, {name: float(value.detach()) for name, value in found.items()})
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor, *, batch: int = 256) -> Tensor:
    """Encode byte pixels to standardised latents (float32, ``(n, c, 12, 12)``)."""
    means = torch.cat([vae.encode(pixels_to_input(part)).latent_dist.mean for part in torch.split(pixels, batch)])
    latents: Tensor = (means - vae.config.shift_factor) * vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, *, batch: int = 256) -> Tensor:
    """Decode standardised latents to byte pixels."""
    raw = latents / vae.config.scaling_factor + vae.config.shift_factor
    return torch.cat([input_to_pixels(vae.decode(part).sample) for part in torch.split(raw, batch)])


@torch.no_grad()
def standardise(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Measure the latents and store the shift and the scale that standardise them in the config."""
    means = torch.cat([vae.encode(pixels_to_input(part)).latent_dist.mean for part in torch.split(pixels, 256)])
    vae.register_to_config(scaling_factor=1 / float(means.std()), shift_factor=float(means.mean()))
