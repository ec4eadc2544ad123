"""Variance-preserving diffusion in flow coordinates: an exact change of variables, nothing approximated.

    x_t = a x0 + b noise,  a^2 + b^2 = 1        the state of an epsilon- or v-prediction network
    x_sigma = (1 - sigma) x0 + sigma noise      the same mixture on the one clock of this package

Dividing x_t by a + b turns the first into the second, so the network's answer becomes a velocity and a DDIM step
becomes an Euler step. Everything here computes in float32: near the largest sigma an epsilon is multiplied by
1 / (1 - sigma), which is 158 for linear betas, and a bfloat16 state would leave nothing of x0.
"""

from jaxtyping import Float
from torch import Tensor

from fewstep.core.flow import per_sample


def sigma_from_signal(signal: Tensor) -> Tensor:
    """The noise level at which flow coordinates mix data and noise in the same proportion.

        sigma = b / (a + b),   b = sqrt(1 - a^2)                                        [eq:vp-sigma]

    Args:
        signal: The variance-preserving factor ``a`` of the data, in [0, 1].
    """
    noise = (1 - signal**2).sqrt()
    return noise / (signal + noise)


def state_scale(sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The factor from a flow state to the variance-preserving state of the same mixture.

    x_t = x_sigma (a + b),   a + b = 1 / sqrt(sigma^2 + (1 - sigma)^2)              [eq:vp-state]
    """
    sigma = sigma.float()
    return (sigma**2 + (1 - sigma) ** 2).rsqrt()


def to_vp(x_sigma: Float[Tensor, "b *latent"], sigma: Float[Tensor, "b"]) -> Float[Tensor, "b *latent"]:
    """The variance-preserving state that a flow state stands for, float32; ``x_t / state_scale`` is the way back."""
    return x_sigma.float() * per_sample(state_scale(sigma), x_sigma)


def velocity_from_epsilon(
    x_sigma: Float[Tensor, "b *latent"], epsilon: Float[Tensor, "b *latent"], sigma: Float[Tensor, "b"]
) -> Float[Tensor, "b *latent"]:
    """Read a velocity off a prediction of the noise.

        velocity = (epsilon - x_sigma) / (1 - sigma)                                    [eq:vp-epsilon]

    Affine in epsilon with one factor for the whole latent: guidance on epsilon is guidance on the velocity. There is
    no velocity at sigma 1, where a noise prediction says nothing about the data.
    """
    return (epsilon.float() - x_sigma.float()) / (1 - per_sample(sigma, x_sigma))


def velocity_from_v_prediction(
    x_sigma: Float[Tensor, "b *latent"], prediction: Float[Tensor, "b *latent"], sigma: Float[Tensor, "b"]
) -> Float[Tensor, "b *latent"]:
    """Read a velocity off a v-prediction ``y = a noise - b x0``; no division, so any sigma will do.

    velocity = c y + (2 sigma - 1) c^2 x_sigma,   c = a + b                         [eq:vp-v-prediction]
    """
    scale = per_sample(state_scale(sigma), x_sigma)
    tilt = 2 * per_sample(sigma, x_sigma) - 1
    return scale * prediction.float() + tilt * scale**2 * x_sigma.float()
