"""A role: one network asked through its adapter in the run's compute precision."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.protocol import Conditioning, ModelAdapter, PromptBatch
from fewstep.core.points import NoisyLatent


@dataclass(frozen=True)
class Role:
    """A network as a function of a point and its prompts; the :data:`Velocity` that methods see.

    Attributes:
        network: Student, teacher or fake score.
        adapter: The backbone's conventions, shared by all roles.
        compute: Precision of the forward and backward pass; weights, losses and conversions stay float32.
    """

    network: nn.Module
    adapter: ModelAdapter
    compute: torch.dtype = torch.float32

    def __call__(self, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        with torch.autocast(point.x_sigma.device.type, dtype=self.compute, enabled=self.compute != torch.float32):
            return self.adapter.velocity(self.network, point, cond)

    def guided(self, point: NoisyLatent, prompts: PromptBatch, guidance_scale: float) -> Float[Tensor, "b *latent"]:
        """The velocity as the backbone's pipeline guides it."""
        with torch.autocast(point.x_sigma.device.type, dtype=self.compute, enabled=self.compute != torch.float32):
            return self.adapter.guided_velocity(
                self.network, point, prompts.teacher, prompts.negative, guidance_scale=guidance_scale
            )

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, in the network's order."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class Roles:
    """The three networks of one run."""

    student: Role
    teacher: Role
    fake_score: Role
