"""The one host read of an update: its figures, and proof that they are finite before any weight moves."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fewstep.errors import NonFiniteError


def read_finite(figures: Mapping[str, Tensor], *, role: str, step: int) -> dict[str, float]:
    """Read one update's losses and gradient norm from the device; stop the run unless all are finite.

    Args:
        figures: Scalars by name, on the device.
        role: Whose update this is, for the message.
        step: Step number, from 0.

    Raises:
        NonFiniteError: Naming each figure that is not finite. Called before AdamW, IDA and EMA move.
    """
    values = dict(zip(figures, torch.stack([v.detach().float() for v in figures.values()]).tolist(), strict=True))
    broken = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise NonFiniteError(
            f"Step {step}: in the update of the {role}, {' and '.join(broken)}; the run stopped before any weight "
            f"moved. Resume from the last checkpoint with a lower learning rate, or with precision.compute=fp32."
        )
    return values
