"""One role's optimiser: AdamW, learning-rate schedule, gradient clipping."""

import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from fewstep.config.run_config import OptimiserConfig
from fewstep.core.objectives import warmed_up
from fewstep.distributed.sharding import local, shard_group
from fewstep.roles.moments import is_packed, pack, unpack

_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
"""AdamW's moments, and whether they have a sign."""


def lr_factor(update: int, *, warmup: int, schedule: str, total: int) -> float:
    """Factor on the learning rate of a role's ``update``-th update, counted from 0.

        min(1, (k + 1) / warmup), then constant, or a cosine or a line to 0 at ``total``

    Differs: the released code starts at 0 and advances by the number of processes; ours counts the role's own
    updates, and the cosine stays at its end instead of rising again.
    """
    warm = warmed_up(update, warmup)
    progress = min(1.0, max(0.0, (update - warmup) / max(1, total - warmup)))
    match schedule:
        case "cosine":
            return warm * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            return warm * (1.0 - progress)
        case _:
            return warm


class RoleOptimiser:
    """AdamW over one role's parameters with float32 state, or moments of larger weights in 8 bits.

    Those are widened for their weight's update, one weight at a time.

    AdamW works element by element, so every process moves its own part of each parameter as a plain tensor: through
    distributed tensors the same update takes twice as long for small networks.

    Args:
        parameters: The role's trainable parameters by name, spread over the processes or not.
        config: Learning rate, betas, warm-up and the like.
        total_updates: Updates of this role in the run's whole budget, for schedules that end.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimiserConfig, *, total_updates: int) -> None:
        self.parameters = dict(parameters)
        self.config = config
        self.total_updates = total_updates
        self.updates = 0
        self.lowered = 1.0  # factor on the rate of a run that went back
        # the same memory as the parameters: moving these moves them
        self._parts = {name: nn.Parameter(local(p.detach())) for name, p in self.parameters.items()}
        self.adamw = torch.optim.AdamW(
            self._parts.values(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        # from the start, so that a checkpoint always has the same fields: loading fills only what is there
        packed = config.moments == "8bit"
        self._packed = {name for name, whole in self.parameters.items() if packed and is_packed(whole.shape)}
        for name, part in self._parts.items():
            moments = {key: torch.zeros_like(part) for key in _SIGNED}
            self.adamw.state[part] = {"step": torch.zeros((), device=part.device), **self._held(name, moments)}

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        config = self.config
        return (
            self.lowered
            * config.lr
            * lr_factor(self.updates, warmup=config.warmup, schedule=config.lr_schedule, total=self.total_updates)
        )

    def clip(self) -> Tensor:
        """Scale the gradients to the clipping norm, if there is one.

        Returns:
            The norm of the whole gradient before that, on the device, the same at every process.
        """
        limit = math.inf if self.config.clip is None else self.config.clip
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        parts = [local(gradient) for gradient in gradients]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts)))
        group = shard_group(gradients[0])
        if group is not None:
            squared = norm.square()
            dist.all_reduce(squared, group=group)
            norm = squared.sqrt()
        torch._foreach_mul_(parts, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def update(self) -> None:
        """Move the weights and drop the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = self.lr
        for name, part in self._parts.items():
            gradient = self.parameters[name].grad
            part.grad = None if gradient is None or name in self._packed else local(gradient)
        self.adamw.step()
        for name in self._packed:
            self._update_packed(name)
        for name, part in self._parts.items():
            part.grad = self.parameters[name].grad = None
        self.updates += 1

    def _update_packed(self, name: str) -> None:
        part, gradient = self._parts[name], self.parameters[name].grad
        if gradient is None:
            return
        state, (group,) = self.adamw.state[part], self.adamw.param_groups
        wide = {key: unpack(state[key], state[f"{key}_scale"], signed=signed) for key, signed in _SIGNED.items()}
        beta1, beta2 = group["betas"]
        adamw(
            [part],
            [local(gradient)],
            [wide["exp_avg"]],
            [wide["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for key, value in self._held(name, wide).items():
            state[key].copy_(value)  # in place, as a checkpoint's loading is

    def _held(self, name: str, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Moments of a weight as the state has them."""
        if name not in self._packed:
            return dict(moments)
        held = {}
        for key, signed in _SIGNED.items():
            held[key], held[f"{key}_scale"] = pack(moments[key], signed=signed)
        return held

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """AdamW's two moments by parameter name, spread as the parameters; writing to them changes the optimiser.

        Of those in 8 bits the codes; their scales are beside them, as ``MOMENT_scale``.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for name, part in self._parts.items():
            for key, value in self.adamw.state[part].items():
                if key != "step":
                    found.setdefault(key, {})[name] = _like(self.parameters[name], value)
        return found

    def steps(self) -> Tensor:
        """AdamW's own count for each parameter: one that never received a gradient stays at zero."""
        return torch.stack([self.adamw.state[part]["step"].cpu() for part in self._parts.values()])

    def resume_at(self, updates: int, steps: Tensor) -> None:
        """Continue as after ``updates`` updates, with what :meth:`steps` gave then."""
        self.updates = updates
        for part, step in zip(self._parts.values(), steps, strict=True):
            self.adamw.state[part]["step"].copy_(step)


def _like(parameter: Tensor, part: Tensor) -> Tensor:
    """A process's part of something, as the whole that is spread like ``parameter``."""
    if not isinstance(parameter, DTensor):
        return part
    mesh, placements = parameter.device_mesh, parameter.placements
    whole = torch.empty(len(parameter), *part.shape[1:], device="meta") if part.dim() else part
    shape, stride = whole.shape, whole.stride()
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=stride)
