"""The one host read of an update: its figures, proof that they are finite, and whose fault it is when they are not."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewstep.core.conditioning import PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.distributed.world import World
from fewstep.errors import CheckpointError, NonFiniteError
from fewstep.roles.role import Role


def read_finite(
    figures: Mapping[str, Tensor], *, role: str, step: int, beside: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Read one update's losses and gradient norm from the device; stop the run unless all are finite.

    Args:
        figures: Scalars by name, on the device.
        role: Whose update this is, for the message.
        step: Step number, from 0.
        beside: Further scalars that are read with them and need not be finite; those that are not are left out.

    Raises:
        NonFiniteError: Naming each figure that is not finite. Called before AdamW, IDA and EMA move.
    """
    asked = {**figures, **(beside or {})}
    values = dict(zip(asked, torch.stack([v.detach().float() for v in asked.values()]).tolist(), strict=True))
    broken = [f"{name} is {values[name]}" for name in figures if not math.isfinite(values[name])]
    if broken:
        raise NonFiniteError(
            f"Step {step}: in the update of the {role}, {' and '.join(broken)}; the run stopped before any weight "
            "moved. Export its last checkpoint and start a new run from it, student.init={model: FOLDER}, with a lower "
            "learning rate or with precision.compute=fp32; neither may change in a resume."
        )
    return {name: value for name, value in values.items() if math.isfinite(value)}


@torch.no_grad()
def blame_inputs(teacher: Role, asked: Sequence[tuple[PromptBatch, Tensor]], world: World) -> None:
    """Raise when embeddings or the teacher are not finite; return when neither is to blame.

    Asked in the first update, when the learning rate has moved nothing yet.
    Every process has to call it, with as many pairs.

    Args:
        teacher: The frozen network.
        asked: Prompts and noise of each microbatch.
        world: The processes of the run.

    Raises:
        CheckpointError: The prompt embeddings, or what the teacher says about pure noise, are not finite.
    """
    adapter = teacher.adapter
    model = adapter.config.model
    if _any_broken([value for prompts, _ in asked for value in prompts.teacher.tensors.values()], world):
        raise CheckpointError(
            "The prompt embeddings of this run's first update hold numbers that are not finite. "
            f"The text encoders of {model} gave them: delete the cache of embeddings and get the model again, or set "
            "precision.compute=fp32."
        )
    answers = []
    for prompts, noise in asked:
        sigma = torch.full((len(noise),), adapter.sigma_max, device=noise.device)
        answers.append(teacher(NoisyLatent(noise * adapter.initial_scale, sigma), prompts.teacher))
    if _any_broken(answers, world):
        raise CheckpointError(
            f"The teacher {model} predicts numbers that are not finite from pure noise, before any weight moved: its "
            "weights are damaged or overflow in half precision. Get the model again, or set precision.compute=fp32."
        )


def _any_broken(tensors: Sequence[Tensor], world: World) -> bool:
    broken = [(~tensor.isfinite()).any() for tensor in tensors if tensor.is_floating_point()]
    return bool(world.total(torch.stack(broken).any().float()) > 0)
