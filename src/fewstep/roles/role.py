"""A role: one network asked through its adapter in the run's compute precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.roles.lora import LoraSwitch, is_factor, plain_name


@dataclass(frozen=True)
class Role:
    """A network as a function of a point and its prompts; the :data:`Velocity` that methods see.

    Attributes:
        network: Student, teacher or fake score; roles with low-rank factors share one.
        adapter: The backbone's conventions, shared by all roles.
        autocast: Precision of the forward where nothing else casts the weights; None where they are cast already.
        switch: Of a network that holds low-rank factors.
        factors: Whose factors this role uses; None is the bare base.
    """

    network: nn.Module
    adapter: ModelAdapter
    autocast: torch.dtype | None = None
    switch: LoraSwitch | None = None
    factors: str | None = None

    def __call__(self, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        with self.acting(point.x_sigma.device):
            return self.adapter.velocity(self.network, point, cond)

    def guided(self, point: NoisyLatent, prompts: PromptBatch, weight: float) -> Float[Tensor, "b *latent"]:
        """The velocity as the backbone's pipeline guides it, with the difference of the branches at this weight."""
        scale = self.adapter.guidance.scale(weight)
        with self.acting(point.x_sigma.device):
            return self.adapter.guided_velocity(
                self.network, point, prompts.teacher, prompts.negative, guidance_scale=scale
            )

    @contextmanager
    def acting(self, device: torch.device) -> Iterator[None]:
        """Whatever asks the network inside asks this role, in its precision."""
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            if self.switch is None:
                yield
                return
            with self.switch.use(self.factors):
                yield

    def weights(self) -> dict[str, nn.Parameter]:
        """The role's trainable parameters by name, in the network's order; factors without the role in their name."""
        named = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if self.switch is None:
            return named
        if self.factors is None:
            return {}
        return {plain_name(name, self.factors): p for name, p in named.items() if is_factor(name, self.factors)}


@dataclass(frozen=True)
class Roles:
    """The three networks of one run."""

    student: Role
    teacher: Role
    fake_score: Role
