"""Conversions between x0, noise, velocity and x_sigma on the one clock sigma (0 = data, 1 = noise).

Every conversion computes in float32 whatever the dtype of its inputs: near sigma 1 a bfloat16 velocity loses
the digits that x0 is made of.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def per_sample(sigma: Float[Tensor, "b"], like: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *ones"]:
    """Give one value per sample the axes of ``like``; the only place that reshapes sigma."""
    return sigma.float()[(..., *(None,) * (like.ndim - 1))]


def interpolate(
    x0: Float[Tensor, "b *latent"], noise: Float[Tensor, "b *latent"], sigma: Float[Tensor, "b"]
) -> Float[Tensor, "b *latent"]:
    """Mix data and noise along the straight path.

        x_sigma = (1 - sigma) x0 + sigma noise                                          [eq:interpolation]

    Args:
        x0: Clean latents in scaled VAE units.
        noise: Standard normal sample of the same shape.
        sigma: Noise level per sample in [0, 1].

    Returns:
        The noisy latents, float32.
    """
    s = per_sample(sigma, x0)
    return (1 - s) * x0.float() + s * noise.float()


def velocity_from(x0: Float[Tensor, "b *latent"], noise: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *latent"]:
    """Differentiate the straight path of one pair.

    velocity = dx_sigma / dsigma = noise - x0                                       [eq:velocity]
    """
    return noise.float() - x0.float()


def x0_from(
    x_sigma: Float[Tensor, "b *latent"], velocity: Float[Tensor, "b *latent"], sigma: Float[Tensor, "b"]
) -> Float[Tensor, "b *latent"]:
    """Read the data prediction off a velocity.

    x0 = x_sigma - sigma velocity                                                   [eq:x0-prediction]
    """
    return x_sigma.float() - per_sample(sigma, x_sigma) * velocity.float()


def euler_step(
    x_sigma: Float[Tensor, "b *latent"],
    velocity: Float[Tensor, "b *latent"],
    *,
    sigma: Float[Tensor, "b"],
    sigma_next: Float[Tensor, "b"],
) -> Float[Tensor, "b *latent"]:
    """Follow the probability-flow ODE from ``sigma`` to ``sigma_next``.

        x_sigma' = x_sigma + (sigma' - sigma) velocity                                  [eq:euler]

    It equals (1 - sigma') x0 + sigma' noise with the predictions of both, that is a DDIM step.
    """
    return x_sigma.float() + per_sample(sigma_next - sigma, x_sigma) * velocity.float()


def mean_velocity(
    x_sigma: Float[Tensor, "b *latent"],
    x_next: Float[Tensor, "b *latent"],
    *,
    sigma: Float[Tensor, "b"],
    sigma_next: Float[Tensor, "b"],
) -> Float[Tensor, "b *latent"]:
    """Find the velocity whose one Euler step leads from ``x_sigma`` to ``x_next``.

        velocity = (x_sigma - x_next) / (sigma - sigma_next)                            [eq:mean-velocity]

    Of two states of one trajectory it is the mean of the velocities in between.
    """
    return (x_sigma.float() - x_next.float()) / per_sample(sigma - sigma_next, x_sigma)


def stretch_to_terminal(sigmas: Float[Tensor, "k"], terminal: float) -> Float[Tensor, "k"]:
    """Stretch a grid away from noise so that its last level is ``terminal``.

    1 - sigma <- (1 - sigma) (1 - terminal) / (1 - sigma_last)                          [eq:terminal]

    A grid of one level at noise has nothing to stretch and gives nan.
    """
    return 1 - (1 - sigmas) * (1 - terminal) / (1 - sigmas[-1])


def guide(
    velocity_cond: Float[Tensor, "b *latent"], velocity_null: Float[Tensor, "b *latent"], guidance_scale: float
) -> Float[Tensor, "b *latent"]:
    """Extrapolate from the unconditional to the conditional velocity.

        velocity = velocity_null + g (velocity_cond - velocity_null)                    [eq:guidance]

    ``g = 1`` is the conditional velocity itself.
    """
    null = velocity_null.float()
    return null + guidance_scale * (velocity_cond.float() - null)


def time_shift(sigma: Tensor, shift: float) -> Tensor:
    """Warp a noise level as flow-matching schedulers do.

        sigma -> s sigma / (1 + (s - 1) sigma)                                          [eq:time-shift]

    A scheduler with dynamic shift uses s = exp(mu). What rounding would put above pure noise is pure noise.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float32)
    return (shift * sigma / (1 + (shift - 1) * sigma)).clamp(max=1.0)
