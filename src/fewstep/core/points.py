"""Points in (x, sigma) space: where the student is asked, and where frozen networks look at its answer."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fewstep.core import flow


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


def renoise(
    x0: Float[Tensor, "b *latent"], *, sigma: Float[Tensor, "b"], noise: Float[Tensor, "b *latent"]
) -> NoisyLatent:
    """Send clean latents back to noise level ``sigma`` with fresh noise: the probe.

    x_probe = (1 - sigma) x0 + sigma noise                                          [eq:probe]
    """
    return NoisyLatent(flow.interpolate(x0, noise, sigma), sigma)
