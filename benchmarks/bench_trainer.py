"""The trainers that the benchmarks measure: real recipes, networks, prompts and settings, before their first step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.networks import Size, save_pipeline, save_prompts
from fewstep.backbones.registry import create_model_adapter
from fewstep.config.recipe import load_recipe
from fewstep.core.schedules import RandomLengthSchedule
from fewstep.data.embeddings import open_or_build
from fewstep.data.prompts import load_prompts
from fewstep.devices import DTYPES
from fewstep.distributed.rounds import Round
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import join
from fewstep.methods.draws import Draws, Streams
from fewstep.roles.build import build_roles
from fewstep.training.run import role_settings
from fewstep.training.step_draws import DrawSource
from fewstep.training.trainer import Trainer

# fmt: off
PUBLISHED_LENGTHS = (
    15, 9, 12, 7, 21, 27, 4, 8, 23, 25, 25, 25, 27, 27, 17, 1, 14, 22, 18, 9,
    7, 27, 24, 6, 13, 18, 17, 9, 15, 2, 24, 23, 28, 5, 8, 3, 1, 6,
)
# fmt: on
"""Schedule lengths that the published code draws at its first 38 steps, whatever its seed."""


@contextmanager
def bench_trainer(recipe: str, overrides: Sequence[str] = (), *, processes: int = 1) -> Iterator[Trainer]:
    """A trainer of a recipe before its first step, on the CPU.

    Args:
        recipe: Its name or file.
        overrides: Settings on top of it.
        processes: With more than one, the trainer does the work of the first of so many, alone: its rows, and as many
            calls as all of them make.
    """
    config = load_recipe(recipe, overrides).config
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    device = torch.device("cpu")
    with TemporaryDirectory() as folder, join(device, timeout_minutes=config.parallel.timeout_minutes) as world:
        dtype = DTYPES[config.precision.compute]
        embeddings = open_or_build(Path(folder), adapter, load_prompts(config.prompts), dtype=dtype)
        settings = role_settings(config)
        roles = build_roles(adapter, settings, world, build_mesh(world, alone=settings.spread_alone))
        yield Trainer(config, adapter, roles, embeddings, device, world=replace(world, size=processes))


@contextmanager
def random_trainer(
    size: Size, overrides: Sequence[str] = (), *, num_prompts: int = 512, processes: int = 1
) -> Iterator[Trainer]:
    """A trainer of the recipe sd3-medium in float32 on a random network, for pictures as large as that takes."""
    side = 8 * size.latent_side
    with TemporaryDirectory() as name:
        settings = [
            f"backbone.model={save_pipeline(Path(name) / 'teacher', size)}",
            f"backbone.height={side}",
            f"backbone.width={side}",
            f"prompts.path={save_prompts(Path(name) / 'prompts.txt', num_prompts)}",
            "precision.compute=fp32",
        ]
        with bench_trainer("sd3-medium", [*settings, *overrides], processes=processes) as trainer:
            yield trainer


def draw_with_lengths(trainer: Trainer, lengths: Sequence[int]) -> DrawSource:
    """The run's own random numbers, but schedules of these lengths, step by step and then from the beginning again."""
    config, schedule = trainer.config, trainer.config.schedule
    assert isinstance(schedule, RandomLengthSchedule)

    def draw(step: int, rows: Round, with_terms: bool) -> Draws:
        length = lengths[step % len(lengths)]
        return Draws.for_step(
            Streams(config.seed),
            step,
            schedule=replace(schedule, min_steps=length, max_steps=length),
            latent_shape=trainer.adapter.latent_shape(config.backbone.height, config.backbone.width),
            positions=rows.own,
            concurrent=rows.concurrent,
            terms=config.terms if with_terms else None,
        )

    return draw
