"""The trainer that the benchmarks measure: the embedded recipe's networks, prompts and settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fewstep.backbones.registry import create_model_adapter
from fewstep.config.recipe import load_recipe
from fewstep.data.embeddings import open_or_build
from fewstep.data.prompts import load_prompts
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import join
from fewstep.roles.build import build_roles
from fewstep.training.run import COMPUTE, role_settings
from fewstep.training.trainer import Trainer


@contextmanager
def bench_trainer(recipe: str, overrides: Sequence[str] = ()) -> Iterator[Trainer]:
    """A trainer of a recipe before its first step, on the CPU."""
    config = load_recipe(recipe, overrides).config
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    device = torch.device("cpu")
    with TemporaryDirectory() as folder, join(device, timeout_minutes=config.parallel.timeout_minutes) as world:
        dtype = COMPUTE[config.precision.compute]
        embeddings = open_or_build(Path(folder), adapter, load_prompts(config.prompts), dtype=dtype)
        roles = build_roles(adapter, role_settings(config), world, build_mesh(world))
        yield Trainer(config, adapter, roles, embeddings, device, world=world)
