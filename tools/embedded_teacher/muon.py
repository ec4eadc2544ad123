"""Muon for the matrices of the demo's teacher: momentum whose singular values are all made about one.

AdamW moves the entries of a matrix by equal amounts, Muon its directions (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"). For the small teacher one step does the work of about one and a half of AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
# the quintic a s + b s^3 + c s^5 takes singular values of (0, 1] into about [0.7, 1.2] within five steps
QUINTIC = (3.4445, -4.7750, 2.0315)
SMALLEST_SIDE = 64


def orthogonalise(matrices: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values of a stack of matrices ``(n, a, b)`` near one, by Newton-Schulz steps in ``dtype``."""
    tall = matrices.shape[1] > matrices.shape[2]
    values: Tensor = matrices.mT if tall else matrices
    values = (values / (values.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    a, b, c = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = values @ values.mT
        values = a * values + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ values
    return (values.mT if tall else values).to(matrices.dtype)


def split_parameters(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Split parameters into the matrices of linear layers with both sides of 64 or more, and the rest.

    The layers inside norms, which turn the clock into scales and shifts, are part of the rest: they are large, and see
    one vector per picture instead of one per token.
    """
    matrices: list[Tensor] = [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= SMALLEST_SIDE and "norm" not in name
    ]
    chosen = {id(matrix) for matrix in matrices}
    return matrices, [parameter for parameter in module.parameters() if id(parameter) not in chosen]


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, with decoupled weight decay; for matrices only.

    Matrices of one shape are handled together: on a CPU many small products cost far more than one of a stack.

    Args:
        matrices: The parameters, all two-dimensional.
        lr: How far the singular values move in a step.
        weight_decay: Share of ``lr`` by which the weights shrink in a step.
        dtype: Of the products; bfloat16 is enough, and faster on processors that have it.
    """

    def __init__(
        self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        if closure is not None:
            raise TypeError("Muon takes no closure")
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._move(matrices, group)

    def _move(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradient = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
        momenta = [self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)) for matrix in matrices]
        torch._foreach_mul_(momenta, MOMENTUM)
        torch._foreach_add_(momenta, list(gradient.unbind()))
        update = orthogonalise(gradient + MOMENTUM * torch.stack(momenta), dtype=self.dtype)
        rows, columns = matrices[0].shape
        # a tall matrix gets entries as large as a square one
        reach = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(update.unbind()), alpha=-reach)
