"""Initial noise of one picture: named by its prompt and seed, so that no batch and no neighbour changes it."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def generator_for(prompt: str, seed: int) -> torch.Generator:
    """One picture's own generator of random numbers, on the CPU."""
    key = hashlib.blake2b(f"{seed}\n{prompt}".encode(), digest_size=8, person=b"fewstep-noise").digest()
    # 63 bits: torch refuses seeds that do not fit its signed range
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def noise_for(prompt: str, seed: int, shape: Sequence[int]) -> Float[Tensor, "*latent"]:
    """Draw the standard normal noise of one picture, on the CPU, float32.

    Args:
        prompt: The picture's prompt; the same seed gives different noise for different prompts.
        seed: Any integer.
        shape: Shape of one latent.
    """
    return torch.randn(tuple(shape), generator=generator_for(prompt, seed), dtype=torch.float32)


def noise_batch(prompts: Sequence[str], seeds: Sequence[int], shape: Sequence[int]) -> Float[Tensor, "b *latent"]:
    """The noise of several pictures, one seed each."""
    return torch.stack([noise_for(prompt, seed, shape) for prompt, seed in zip(prompts, seeds, strict=True)])
