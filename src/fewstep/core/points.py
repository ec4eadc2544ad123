"""Points in (x, sigma) space: where the student is asked, and where frozen networks look at its answer."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow

Step = Literal["euler", "renoise"]
"""How a sampler goes to the next noise level: along the velocity, or with fresh noise on the predicted x0."""


@dataclass(frozen=True)
class NoisyLatent:
    """A batch of latents, each with its own noise level.

    Attributes:
        x_sigma: Noisy latents in scaled VAE units, float32, ``(b, *latent)``.
        sigma: Noise level per sample in [0, 1], float32, ``(b,)``.
    """

    x_sigma: Float[Tensor, "b *latent"]
    sigma: Float[Tensor, "b"]

    def x0(self, velocity: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *latent"]:
        """The data prediction of a network that answered ``velocity`` here."""
        return flow.x0_from(self.x_sigma, velocity, self.sigma)

    def rows(self, index: Tensor) -> "NoisyLatent":
        """The samples selected by ``index``."""
        return NoisyLatent(self.x_sigma[index], self.sigma[index])


def extrapolate(anchor: NoisyLatent, velocity: Float[Tensor, "b *latent"], *, sigma: Float[Tensor, "b"]) -> NoisyLatent:
    """Move each anchor along its own velocity to noise level ``sigma``.

        x_sigma' = x_sigma + (sigma' - sigma) velocity                                  [eq:off-trajectory]

    Exact on the straight path of one (x0, noise) pair; first order in sigma' - sigma along the marginal flow,
    which bends.

    Args:
        anchor: Latents in scaled VAE units with their noise level in [0, 1].
        velocity: Student velocity at ``anchor``; detached by the caller.
        sigma: Target noise level per sample, float32.

    Returns:
        The moved latents, float32.
    """
    moved = flow.euler_step(anchor.x_sigma, velocity, sigma=anchor.sigma, sigma_next=sigma)
    return NoisyLatent(moved, sigma)


def step_down(
    point: NoisyLatent,
    velocity: Float[Tensor, "b *latent"],
    *,
    sigma_next: Float[Tensor, "b"],
    noise: Float[Tensor, "b *latent"] | None = None,
) -> NoisyLatent:
    """One step of a sampler: along the velocity, or back from the predicted data with fresh noise.

        x_sigma' = x_sigma + (sigma' - sigma) velocity                without noise, an Euler step
        x_sigma' = (1 - sigma') x0 + sigma' noise                     with it           [eq:renoising-step]

    Args:
        point: Where the network was asked.
        velocity: Its answer.
        sigma_next: Noise level per sample to go down to.
        noise: Fresh standard normal noise of a re-noising step; None makes an Euler step.
    """
    if noise is None:
        return extrapolate(point, velocity, sigma=sigma_next)
    return renoise(point.x0(velocity), sigma=sigma_next, noise=noise)


def renoise(
    x0: Float[Tensor, "b *latent"], *, sigma: Float[Tensor, "b"], noise: Float[Tensor, "b *latent"]
) -> NoisyLatent:
    """Send clean latents back to noise level ``sigma`` with fresh noise: the probe.

    x_probe = (1 - sigma) x0 + sigma noise                                          [eq:probe]
    """
    return NoisyLatent(flow.interpolate(x0, noise, sigma), sigma)
