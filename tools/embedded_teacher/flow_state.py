"""What a flow-matching training carries from step to step, kept in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from fewstep.errors import NonFiniteError
from fewstep.files import whole_file

Networks = TypeVar("Networks", bound=nn.Module)


@dataclass
class FlowState(Generic[Networks]):
    """Everything that a training run of the teacher carries from step to step."""

    networks: Networks
    ema: Networks
    optimisers: tuple[torch.optim.Optimizer, ...]
    step: int = 0

    def set_rates(self, share: float) -> None:
        """Give every optimiser this share of its highest learning rate."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = share * optimiser.defaults["lr"]

    def move(self, loss: Tensor) -> float:
        """Take one step down the gradient of ``loss``, and give its value.

        Raises:
            NonFiniteError: The loss is not finite; no weight has moved.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"Step {self.step}: the loss of the teacher is {value}; no weight moved. At the first "
                "steps the code that torch.compile made for this processor is the likely cause: set "
                "TORCH_COMPILE_DISABLE=1 to train without it, which takes twice as long."
            )
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return value

    def save(self, path: Path) -> None:
        """Write the state, replacing an earlier one only once the new file is complete."""
        states = {
            "networks": self.networks.state_dict(),
            "ema": self.ema.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
        }
        with whole_file(path) as unfinished:
            torch.save(states, unfinished)

    def load(self, path: Path) -> None:
        """Read a state written by :meth:`save`."""
        saved = torch.load(path, weights_only=True)
        self.networks.load_state_dict(saved["networks"])
        self.ema.load_state_dict(saved["ema"])
        for optimiser, values in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        self.step = saved["step"]
