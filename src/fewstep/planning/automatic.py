"""What ``memory.gradient_checkpointing=auto`` is on some devices: the quickest kind that they have room for."""

from dataclasses import dataclass

import torch

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.planning.memory import GIB, predict
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.planning.search import ASSUMED, KINDS
from fewstep.roles.recomputation import Recomputation

# parameters below which a plan takes as long as it saves in thousands of steps
_SMALL = 10_000_000


@dataclass(frozen=True)
class Fitting:
    """A kind of recomputation.

    Attributes:
        reason: Why this one, as a run prints it.
    """

    kind: Recomputation
    reason: str


def recomputation_that_fits(
    config: RunConfig, adapter: ModelAdapter, *, processes: int, device: torch.device, room: float | None
) -> Fitting:
    """Predict what each kind needs, the quickest first; recompute whole blocks where that cannot be known.

    Args:
        config: The recipe; its other settings for memory stay as they are.
        adapter: Of its checkpoint.
        processes: Of the run.
        device: Of what kind they all compute on.
        room: Bytes that are free at the process that has the fewest; None where that cannot be found out.
    """
    if room is None:
        return Fitting(True, f"how much memory is free on {device.type} cannot be found out")
    try:
        roles = PlannedRoles(config, _largest(config, adapter))
        count = roles.base_table.count
        if count < _SMALL:
            return Fitting(True, f"a network of {count / 1e6:.1f} million parameters is not worth a plan")
        return _first_that_fits(config, roles, processes=processes, accelerator=device.type != "cpu", room=room)
    except (ConfigError, RuntimeError):  # of networks of other packages, also when they cannot run without values
        return Fitting(True, "the memory of this backbone cannot be predicted")


def _largest(config: RunConfig, adapter: ModelAdapter) -> DiffusersAdapter:
    if not isinstance(adapter, DiffusersAdapter):
        raise ConfigError(f"{type(adapter).__name__} is no DiffusersAdapter.")
    return adapter.at_size(*max(config.backbone.training_sizes, key=lambda size: size[0] * size[1]))


def _first_that_fits(
    config: RunConfig, roles: PlannedRoles, *, processes: int, accelerator: bool, room: float
) -> Fitting:
    needed: dict[Recomputation, float] = {}
    for kind in KINDS:
        memory = config.memory.model_copy(update={"gradient_checkpointing": kind})
        planned = config.model_copy(update={"memory": memory})
        peak = predict(planned, roles, processes=processes, accelerator=accelerator).peak
        needed[kind] = ASSUMED.factor * peak + ASSUMED.constant
        if needed[kind] <= room:
            break
    kind, need = list(needed.items())[-1]
    told = f"{need / GIB:.1f} GiB with a reserve, and {room / GIB:.1f} are free"
    if need > room:
        return Fitting(kind, f"even that may need {told}; fewstep plan chooses settings that fit")
    more = [f"{value:.1f}" for value in (bytes_ / GIB for bytes_ in list(needed.values())[:-1])]
    return Fitting(kind, f"it needs {told}" + (f"; quicker ones need {' and '.join(more)}" if more else ""))
