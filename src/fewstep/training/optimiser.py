"""One role's optimiser: AdamW, learning-rate schedule, gradient clipping."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewstep.config.run_config import OptimiserConfig


def lr_factor(update: int, *, warmup: int, schedule: str, total: int) -> float:
    """Factor on the learning rate of a role's ``update``-th update, counted from 0.

        min(1, (k + 1) / warmup), then constant, or a cosine or a line to 0 at ``total``

    Differs: the released code starts at 0 and advances by the number of processes; ours counts the role's own
    updates, and the cosine stays at its end instead of rising again.
    """
    warm = min(1.0, (update + 1) / warmup) if warmup else 1.0
    progress = min(1.0, max(0.0, (update - warmup) / max(1, total - warmup)))
    match schedule:
        case "cosine":
            return warm * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            return warm * (1.0 - progress)
        case _:
            return warm


class RoleOptimiser:
    """AdamW over one role's parameters with float32 state.

    Args:
        parameters: The role's trainable parameters.
        config: Learning rate, betas, warm-up and the like.
        total_updates: Updates of this role in the run's whole budget, for schedules that end.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: OptimiserConfig, *, total_updates: int) -> None:
        self.parameters = list(parameters)
        self.config = config
        self.total_updates = total_updates
        self.updates = 0
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        # torch's state-dict functions would make missing state with a dummy step and count it: a run saved before
        # its first update would resume with another bias correction
        for parameter in self.parameters:
            self.adamw.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        config = self.config
        return config.lr * lr_factor(
            self.updates, warmup=config.warmup, schedule=config.lr_schedule, total=self.total_updates
        )

    def clip(self) -> Tensor:
        """Scale the gradients to the clipping norm, if there is one; returns their norm before that, on the device."""
        limit = math.inf if self.config.clip is None else self.config.clip
        return nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)

    def update(self) -> None:
        """Move the weights and drop the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = self.lr
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.updates += 1
