"""Every family of the porting matrix on two processes: full weights and low-rank factors, two steps each."""

import json
from collections.abc import Callable
from pathlib import Path

from torch.distributed.device_mesh import DeviceMesh

from fewstep.config.run_config import RunConfig
from fewstep.data.embeddings import open_or_build
from fewstep.distributed.world import World
from fewstep.roles.build import build_roles
from fewstep.testing.case import PROMPTS, open_case, save
from fewstep.training.run import role_settings
from fewstep.training.trainer import Trainer
from tests.backbones.families import FAMILIES

ONE_OF_EACH = {family.kind: name for name, family in reversed(FAMILIES.items())}
"""Kind of backbone -> the first of its tiny pipelines."""

WEIGHTS = {"full": {"kind": "full"}, "lora": {"kind": "lora", "rank": 2}}


def scenarios(folder: Path, world: World, mesh: DeviceMesh | None) -> dict[str, Callable[[], object]]:
    """One scenario per kind and mode; each writes the figures of its steps into FOLDER."""

    def scenario(kind: str, mode: str) -> Callable[[], object]:
        return lambda: two_steps(folder, kind, mode, world, mesh)

    return {f"{kind}.{mode}": scenario(kind, mode) for kind in ONE_OF_EACH for mode in WEIGHTS}


def two_steps(folder: Path, kind: str, mode: str, world: World, mesh: DeviceMesh | None) -> None:
    family = FAMILIES[ONE_OF_EACH[kind]]
    teacher = folder / "families" / kind
    world.from_main(lambda: None if teacher.exists() else save(family, teacher))
    case = open_case(family, teacher)
    settings = case.run_config().model_dump(mode="json")
    for role in ("student", "fake_score"):
        settings[role]["weights"] = WEIGHTS[mode]
    config = RunConfig.model_validate(settings)
    world.from_main(lambda: open_or_build(folder / "families" / f"{kind}-cache", case.adapter, PROMPTS) and None)
    embeddings = open_or_build(folder / "families" / f"{kind}-cache", case.adapter, PROMPTS)
    roles = build_roles(case.adapter, role_settings(config), world, mesh)
    trainer = Trainer(config, case.adapter, roles, embeddings, world.device, world=world)
    figures = [trainer.run_step().figures for _ in range(2)]
    if world.is_main:
        (folder / f"{kind}.{mode}.figures").write_text(json.dumps(figures))
