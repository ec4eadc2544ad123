"""Data distributions whose exact velocity is known in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.core.flow import per_sample
from fewstep.core.points import NoisyLatent


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2), independent per element."""

    mean: float
    std: float

    def x0(self, point: NoisyLatent) -> Tensor:
        """E[x0 | x_sigma]."""
        s = per_sample(point.sigma, point.x_sigma)
        gain = (1 - s) * self.std**2 / ((1 - s) ** 2 * self.std**2 + s**2)
        return self.mean + gain * (point.x_sigma - (1 - s) * self.mean)

    def velocity(self, point: NoisyLatent) -> Tensor:
        """E[noise - x0 | x_sigma]; finite at sigma 0 and 1."""
        s = per_sample(point.sigma, point.x_sigma)
        variance = (1 - s) ** 2 * self.std**2 + s**2
        centred = point.x_sigma - (1 - s) * self.mean
        noise = s / variance * centred
        return noise - self.x0(point)

    def flow(self, noise: Tensor) -> Tensor:
        """Where the probability-flow ODE carries ``noise`` from sigma 1 to 0."""
        return self.mean + self.std * noise


@dataclass(frozen=True)
class Mixture:
    """Data from equally likely Gaussians in the plane, all with one std; latents are (b, 2)."""

    means: Tensor
    std: float

    def x0(self, point: NoisyLatent) -> Tensor:
        """E[x0 | x_sigma]: the components' conditional means weighted by their posterior."""
        s = per_sample(point.sigma, point.x_sigma)
        variance = (1 - s) ** 2 * self.std**2 + s**2
        offsets = point.x_sigma[:, None] - (1 - s[:, None]) * self.means
        posterior = torch.softmax(-offsets.square().sum(-1) / (2 * variance), dim=1)
        gain = ((1 - s) * self.std**2 / variance)[:, None]
        return (posterior[..., None] * (self.means + gain * offsets)).sum(1)

    def velocity(self, point: NoisyLatent) -> Tensor:
        """(x_sigma - x0) / sigma; ask above sigma 0."""
        return (point.x_sigma - self.x0(point)) / per_sample(point.sigma, point.x_sigma)
