"""Who is to blame when the first update of a run is not finite: not the learning rate, which has moved nothing yet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.core.conditioning import PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.distributed.world import World
from fewstep.errors import CheckpointError
from fewstep.roles.role import Role


@torch.no_grad()
def blame_inputs(teacher: Role, asked: Sequence[tuple[PromptBatch, Tensor]], world: World) -> None:
    """Raise when embeddings or the teacher are not finite; return when neither is to blame.

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
