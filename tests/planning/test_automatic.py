"""``memory.gradient_checkpointing=auto`` is the quickest kind that the devices have room for."""

import math

import pytest
import torch

from fewstep.config.run_config import RunConfig
from fewstep.planning.automatic import Fitting, recomputation_that_fits
from fewstep.planning.memory import predict
from fewstep.planning.plan import Planner
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.planning.search import ASSUMED
from fewstep.roles.recomputation import Recomputation
from tests.planning.real_steps import RandomSD3, adapter_of, config_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapter() -> RandomSD3:
    return adapter_of(config_of(), layers=4, heads=8)


def needed(adapter: RandomSD3, kind: str) -> float:
    config = config_of(f"memory.gradient_checkpointing={kind}")
    peak = predict(config, PlannedRoles(config, adapter), processes=1, accelerator=False).peak
    return ASSUMED.factor * peak + ASSUMED.constant


def found(adapter: RandomSD3, room: float | None, config: RunConfig | None = None) -> Fitting:
    return recomputation_that_fits(config or config_of(), adapter, processes=1, device=CPU, room=room)


@pytest.mark.parametrize(("room_for", "kind"), [("false", False), ("selective", "selective"), ("true", True)])
def test_the_quickest_kind_that_fits_is_taken(adapter: RandomSD3, room_for: str, kind: Recomputation) -> None:
    assert found(adapter, needed(adapter, room_for)).kind == kind


def test_a_byte_too_few_takes_the_next_kind_and_says_what_the_quicker_one_needs(adapter: RandomSD3) -> None:
    chosen = found(adapter, needed(adapter, "false") - 1)
    assert chosen.kind == "selective"
    assert f"quicker ones need {needed(adapter, 'false') / 2**30:.1f}" in chosen.reason


def test_where_nothing_fits_blocks_are_recomputed_and_the_plan_is_named(adapter: RandomSD3) -> None:
    chosen = found(adapter, needed(adapter, "true") - 1)
    assert chosen.kind is True
    assert "fewstep plan chooses settings that fit" in chosen.reason


def test_where_free_memory_is_not_known_blocks_are_recomputed(adapter: RandomSD3) -> None:
    assert found(adapter, None) == Fitting(True, "how much memory is free on cpu cannot be found out")


def test_a_small_network_is_not_planned() -> None:
    chosen = found(adapter_of(config_of(), layers=2, heads=2), math.inf)
    assert chosen.kind is True and "million parameters is not worth a plan" in chosen.reason


def test_a_network_that_cannot_run_without_values_recomputes_blocks(
    adapter: RandomSD3, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads_values(self: RandomSD3, network: object, point: object, cond: object) -> torch.Tensor:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(RandomSD3, "velocity", reads_values)
    assert found(adapter, math.inf) == Fitting(True, "the memory of this backbone cannot be predicted")


def test_a_plan_chooses_where_auto_is_stated() -> None:
    auto, free = (
        Planner("sana-600m", stated).plan(gpus=8, memory=80 * 2**30)
        for stated in (["memory.gradient_checkpointing=auto"], [])
    )
    assert auto.settings == free.settings
    assert auto.settings["memory.gradient_checkpointing"] != "auto"
