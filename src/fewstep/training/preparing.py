"""What is found out before a run's folder is made: that its files can be used, and what ``auto`` is on its devices."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fewstep.backbones.one_file import is_one_file, require_usable_file
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.source import open_checkpoint
from fewstep.config.run_config import RunConfig
from fewstep.devices import cpu_multiplies_bf16, free_memory
from fewstep.distributed.world import World
from fewstep.planning.automatic import Fitting, recomputation_that_fits
from fewstep.roles.moments import require_packed
from fewstep.roles.weights import StartFromLora, StartFromModel
from fewstep.runs.folder import read_config
from fewstep.runs.places import CONFIG

if TYPE_CHECKING:
    from fewstep.config.recipe import Recipe

_LARGE = 10_000_000
"""Parameters from which products take most of the time of a network."""


def require_files(adapter: ModelAdapter, start: StartFromLora | StartFromModel | None) -> None:
    """Find out what is wrong with files beside the checkpoint before prompts are embedded, which may take hours."""
    adapter.require_usable()
    match start:
        case StartFromLora():
            adapter.read_start(start.source)
        case StartFromModel() if is_one_file(start.model):
            require_usable_file(start.model, adapter.config.origin)
        case StartFromModel():
            open_checkpoint(start.model, start.revision)


def tell_of_precision(compute: str, device: torch.device, network: nn.Module, tell: Callable[[str], None]) -> None:
    """Say where the other ``precision.compute`` would be the faster one on this CPU; the run stays as it was asked."""
    if device.type != "cpu" or sum(parameter.numel() for parameter in network.parameters()) < _LARGE:
        return
    match compute, cpu_multiplies_bf16():
        case "fp32", True:
            tell("This CPU multiplies in bf16: a run with precision.compute=bf16 takes fewer seconds.")
        case "bf16", False:
            tell("This CPU has no products in bf16: a run with precision.compute=fp32 takes fewer seconds.")


def require_moments(config: RunConfig, world: World) -> None:
    """Raise ConfigError when a role's moments cannot be held as it asks."""
    for role, settings in {"student": config.student, "fake_score": config.fake_score}.items():
        if settings.moments == "8bit":
            require_packed(f"{role}.moments is 8bit", world.device)


def with_recomputation(
    recipe: "Recipe", adapter: ModelAdapter, world: World, *, earlier: Path | None, tell: Callable[[str], None]
) -> "Recipe":
    """The recipe with a kind of recomputation in the place of ``auto``; every process of a run gets the same.

    Args:
        recipe: As the user gave it.
        adapter: Of its checkpoint.
        world: The processes of the run; nothing of it is on their devices yet.
        earlier: Folder of the run that goes on, if there is one: it keeps what it began with, whatever is free now.
        tell: Says what was chosen, and why.
    """
    config = recipe.config
    if config.memory.gradient_checkpointing != "auto":
        return recipe
    free = world.gather_to_main(free_memory(world.device))

    def choose() -> Fitting:
        if earlier is not None and (earlier / CONFIG).is_file():
            return Fitting(read_config(earlier).memory.recomputation, "the run began with it")
        known = [each for each in free if each is not None]
        # processes on CPUs have one memory
        sharing = world.size if world.device.type == "cpu" else 1
        room = min(known) / sharing if len(known) == world.size else None
        return recomputation_that_fits(config, adapter, processes=world.size, device=world.device, room=room)

    chosen = world.from_main(choose)
    value = str(chosen.kind).lower()
    tell(f"memory.gradient_checkpointing is auto, so it is {value}: {chosen.reason}.")
    memory = config.memory.model_copy(update={"gradient_checkpointing": chosen.kind})
    return replace(recipe, config=config.model_copy(update={"memory": memory}))
