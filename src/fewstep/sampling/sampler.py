"""The sampler: noise that prompt and seed name, so that no neighbour changes it, and an Euler loop down a grid."""

import hashlib
import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.bounds import Steps, require_within
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent, step_down
from fewstep.core.schedules import with_final_zero
from fewstep.errors import ConfigError, shown


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


def step_noise_batch(
    prompts: Sequence[str], seeds: Sequence[int], shape: Sequence[int], *, steps: int
) -> Float[Tensor, "b k1 *latent"]:
    """The noise of several pictures whose ``steps`` re-noise: each one's generator goes on behind its initial noise."""

    def behind_the_first(prompt: str, seed: int) -> Tensor:
        generator = generator_for(prompt, seed)
        drawn = [torch.randn(tuple(shape), generator=generator, dtype=torch.float32) for _ in range(steps)]
        return torch.stack(drawn)[1:]

    return torch.stack([behind_the_first(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])


_VelocityField = Callable[[NoisyLatent], Tensor]


@torch.no_grad()
def sample_latents(
    velocity: _VelocityField,
    noise: Float[Tensor, "b *latent"],
    sigmas: Float[Tensor, "k"],
    *,
    initial_scale: float = 1.0,
    step_noise: Float[Tensor, "b k1 *latent"] | None = None,
) -> Float[Tensor, "b *latent"]:
    """Go from noise to data, one network call per level: along the probability-flow ODE, or re-noising.

        x <- x + (sigma_next - sigma) velocity(x, sigma)     down the grid, ending at sigma 0
        x <- (1 - sigma_next) x0 + sigma_next noise          with ``step_noise``

    Args:
        velocity: The field to follow, guided or not.
        noise: Standard normal, float32.
        sigmas: Strictly descending noise levels in (0, 1], without the final 0.
        initial_scale: The adapter's factor from noise to the state at its largest sigma.
        step_noise: Standard normal, for each step but the last; None makes Euler steps.

    Returns:
        Clean latents in scaled VAE units, float32.
    """
    x = noise.float() * initial_scale
    grid = with_final_zero(sigmas.to(device=x.device, dtype=torch.float32))
    levels = grid.unsqueeze(1).expand(-1, len(x)).unbind()
    noises = [None] * len(sigmas) if step_noise is None else [*step_noise.to(x.device).unbind(1), torch.zeros_like(x)]
    point = NoisyLatent(x, levels[0])
    for sigma_next, step_with in zip(levels[1:], noises, strict=True):
        point = step_down(point, velocity(point), sigma_next=sigma_next, noise=step_with)
    return point.x_sigma


def velocity_field(
    adapter: ModelAdapter,
    network: nn.Module,
    cond: Conditioning,
    null_cond: Conditioning | None = None,
    *,
    guidance_scale: float | None = None,
) -> _VelocityField:
    """The field that one batch of prompts follows; as in training, text that a mask hides in all of them is left out.

    Args:
        cond: One row per sample.
        null_cond: One row; read only when ``guidance_scale`` is not the adapter's ``guidance.off``.
        guidance_scale: As the pipeline counts it; None asks as a student is asked.
    """
    if guidance_scale is None or guidance_scale == adapter.guidance.off:
        (seen,) = adapter.without_padding(cond)
        return lambda point: adapter.velocity(network, point, seen)
    if null_cond is None:
        raise ValueError(f"guidance_scale {guidance_scale} needs null_cond, the unconditional branch")
    seen, null = adapter.without_padding(cond, null_cond.expand(len(cond)))
    return lambda point: adapter.guided_velocity(network, point, seen, null, guidance_scale=guidance_scale)


def uniform_levels(steps: int) -> Float[Tensor, "k"]:
    """Levels of a uniform grid, before the time shift: [1, 1 - 1/n, ..., 1/n]."""
    require_within(steps, "steps", Steps)
    return torch.linspace(1.0, 1.0 / steps, steps, dtype=torch.float32)


def teacher_sigmas(adapter: ModelAdapter, steps: int) -> Float[Tensor, "k"]:
    """The uniform grid of ``steps`` levels, shifted by the backbone's own scheduler.

    sigmas = adapter.sigmas([1, 1 - 1/n, ..., 1/n])

    Raises:
        ConfigError: The scheduler leaves no grid of so many steps.
    """
    sigmas = adapter.sigmas(uniform_levels(steps))
    if not (torch.isfinite(sigmas).all() and (sigmas.diff() < 0).all() and sigmas[-1] > 0):
        raise ConfigError(
            f"The scheduler of {adapter.config.model} makes the noise levels {shown(sigmas.tolist())} "
            f"of {steps} steps, which do not descend; draw with another number of steps."
        )
    return sigmas


def require_levels(sigmas: Sequence[float]) -> None:
    """Raise ConfigError unless noise levels descend in (0, 1]; NaN compares as false with everything."""
    descending = all(first > second for first, second in itertools.pairwise(sigmas))
    if not sigmas or not descending or not 0 < sigmas[-1] <= sigmas[0] <= 1:
        raise ConfigError(f"The sigmas are {shown(list(sigmas))}; they must descend from at most 1 and stay above 0.")
