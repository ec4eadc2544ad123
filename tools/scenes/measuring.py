"""How right the teacher is: at 50 steps and at 4, each at its best guidance and grid.

The pictures are those of the networks' running average, drawn by Euler steps along the flow.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fewstep.config.recipe import load_recipe
from fewstep.embedded.scenes.detector import SceneDetector, Seen, read_detector
from fewstep.embedded.scenes.grammar import Scene
from fewstep.embedded.scenes.judging import CATEGORIES, category, is_right
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.prdc import prdc
from tools.embedded_teacher.teacher import PromptEmbeds, TeacherNetworks
from tools.scenes.autoencoder import CHANNELS, decode
from tools.scenes.networks import LATENT_SIZE, build_tokenizer, tokenize
from tools.scenes.pictures import draw
from tools.scenes.shipping import COPIES, prompts
from tools.scenes.workshop import Workshop, pixels_of, read_autoencoder, read_networks

STEPS, FEW_STEPS = 50, 4
GUIDANCES = (1.0, 2.0, 3.0, 4.0)
SHIFTS = (0.25, 0.5, 1.0, 2.0, 3.0)
"""Of even grids of few steps: sigma becomes ``shift sigma / (1 + (shift - 1) sigma)``."""


@dataclass(frozen=True)
class Measured:
    """What the detector says of one picture for each prompt, and how far their features are from real pictures'."""

    overall: float
    by_category: dict[str, float]
    fd: float
    precision: float
    recall: float
    coverage: float
    guidance: float | None = None
    sigmas: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Protocol:
    """The prompts, one picture each, and real pictures of the same prompts to compare with."""

    scenes: tuple[Scene, ...]
    reference: Tensor
    detector: SceneDetector
    seed: int

    def judge(self, pixels: Tensor, *, guidance: float | None = None, sigmas: Sequence[float] = ()) -> Measured:
        """Measure pictures of the prompts, byte pixels ``(n, 3, 48, 48)``; a grid of few steps is named."""
        seen, features = self.detector.see(pixels)
        shares = shares_right(self.scenes, seen)
        near = prdc(self.reference, features)
        return Measured(
            sum(shares.values()) / len(shares),
            shares,
            frechet_distance(self.reference, features),
            near.precision,
            near.recall,
            near.coverage,
            guidance,
            tuple(sigmas) if 0 < len(sigmas) <= FEW_STEPS else None,
        )


def shares_right(scenes: Sequence[Scene], seen: Sequence[Seen]) -> dict[str, float]:
    """The share of right pictures of each category."""
    right: dict[str, list[bool]] = {name: [] for name in CATEGORIES}
    for scene, found in zip(scenes, seen, strict=True):
        right[category(scene)].append(is_right(scene, found))
    return {name: sum(each) / len(each) for name, each in right.items() if each}


@torch.no_grad()
def draw_latents(
    networks: TeacherNetworks,
    told: Sequence[str],
    sigmas: Sequence[float],
    *,
    guidance: float,
    noise: Tensor,
    batch: int = 250,
) -> Tensor:
    """Integrate the flow from noise to standardised latents, with classifier-free guidance unless ``guidance`` is 1."""
    tokenizer = build_tokenizer()
    ids, null = tokenize(tokenizer, told), networks.encode(tokenize(tokenizer, [""]))
    drawn = []
    for x, own in zip(torch.split(noise, batch), torch.split(ids, batch), strict=True):
        cond = networks.encode(own)
        nothing = PromptEmbeds(null.tokens.expand_as(cond.tokens), null.pooled.expand_as(cond.pooled))
        for sigma, following in itertools.pairwise([*sigmas, 0.0]):
            clock = torch.full((len(x),), sigma)
            velocity = networks.velocity(x, clock, cond)
            if guidance != 1.0:
                free = networks.velocity(x, clock, nothing)
                velocity = free + guidance * (velocity - free)
            x = x + (following - sigma) * velocity
        drawn.append(x)
    return torch.cat(drawn)


def grid(num_steps: int, shift: float = 1.0) -> list[float]:
    """Sigmas from one down, evenly spaced and then shifted; the final zero is not in it."""
    return [shift * s / (1 + (shift - 1) * s) for s in (1 - step / num_steps for step in range(num_steps))]


def measure(shop: Workshop, *, per_category: int) -> dict[str, object]:
    """Measure real pictures and the teacher; the rows by name.

    Args:
        shop: Where the networks are.
        per_category: Prompts of each category, with one picture each; four in the reference.

    Raises:
        ConfigError: No teacher has been trained in the folder.
    """
    networks = read_networks(shop)
    detector, vae = read_detector(shop.result("detector.safetensors")), read_autoencoder(shop)
    scenes, rng = prompts(per_category, seed=10), random.Random(11)
    reference = detector.see(pixels_of([draw(scene, rng) for scene in COPIES * scenes]))[1]
    protocol = Protocol(scenes, reference, detector, seed=12)
    real = protocol.judge(pixels_of([draw(scene, rng) for scene in scenes]))
    many = [_teacher(protocol, vae, networks, grid(STEPS), guidance) for guidance in GUIDANCES[1:]]
    grids = [*(grid(FEW_STEPS, shift) for shift in SHIFTS), load_recipe("scenes").config.sampling.levels]
    few = [_teacher(protocol, vae, networks, each, guidance) for guidance, each in itertools.product(GUIDANCES, grids)]
    best, best_few = max(many, key=lambda one: one.overall), max(few, key=lambda one: one.overall)
    nearest_few = min(few, key=lambda one: one.fd)
    rows = {"real": real, "50 steps": best, "4 steps, most right": best_few, "4 steps, nearest": nearest_few}
    return {name: asdict(row) for name, row in rows.items()}


def _teacher(
    protocol: Protocol, vae: AutoencoderKL, networks: TeacherNetworks, sigmas: Sequence[float], guidance: float
) -> Measured:
    told = [scene.sentence() for scene in protocol.scenes]
    generator = torch.Generator().manual_seed(protocol.seed)
    noise = torch.randn(len(told), CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator)
    latents = draw_latents(networks, told, sigmas, guidance=guidance, noise=noise)
    return protocol.judge(decode(vae, latents), guidance=guidance, sigmas=sigmas)
