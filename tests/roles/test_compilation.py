"""Compiled blocks whose factors are switched between calls."""

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from fewstep.backbones import create_model_adapter
from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.points import NoisyLatent
from fewstep.roles.compilation import compile_blocks
from fewstep.roles.role import Roles
from tests.backbones import tiny
from tests.roles.test_lora import both, gradients, move, question


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> ModelAdapter:
    folder = tiny.save(tiny.sd3_pipeline(sd35=False, t5=False, blocks=2), tmp_path_factory.mktemp("compiled") / "model")
    config = create_model_adapter(folder).default_config(str(folder), None, create_model_adapter(folder).components)
    size = {"height": 16, "width": 16, "max_sequence_length": 1}
    return create_model_adapter(folder, config.model_copy(update=size))


def roles_of(adapter: ModelAdapter, **settings: Any) -> Roles:
    roles = both(adapter, **settings)
    move(roles.student, 1)
    move(roles.fake_score, 2)
    return roles


def one_step(roles: Roles, adapter: ModelAdapter) -> list[torch.Tensor]:
    """Answers without a gradient, and gradients, of all roles in turn."""
    with torch.no_grad():
        found = [role(*question(adapter)) for role in (roles.student, roles.teacher)]
    for role, during in ((roles.student, roles.teacher), (roles.fake_score, roles.student)):
        taken = gradients(role, adapter, during)
        assert taken
        found += taken.values()
    return found


@pytest.mark.parametrize(
    "checkpointing", [False, *(pytest.param(chosen, marks=pytest.mark.slow) for chosen in (True, "selective"))]
)
def test_a_switch_between_roles_changes_the_answer_and_compiles_nothing(
    adapter: ModelAdapter, checkpointing: Any
) -> None:
    torch._dynamo.reset()  # what another test compiled would serve
    plain, compiled = (roles_of(adapter, checkpointing=checkpointing) for _ in range(2))
    compile_blocks(compiled.student.network, adapter.block_classes, backend="aot_eager")
    expected = one_step(plain, adapter)
    made = [counters["stats"]["unique_graphs"]]
    for _ in range(2):
        # operations that are split into others round once more: float32 through a few sums of some hundred terms
        for ours, theirs in zip(one_step(compiled, adapter), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))
        made.append(counters["stats"]["unique_graphs"])
    assert made[0] < made[1] == made[2]


def test_blocks_are_still_compiled_after_more_compilations_than_torch_keeps(adapter: ModelAdapter) -> None:
    torch._dynamo.reset()
    roles = roles_of(adapter)
    compile_blocks(roles.student.network, adapter.block_classes, backend="aot_eager")
    one_step(roles, adapter)  # two blocks of different shape, under two roles with a gradient and two without
    before = counters["stats"]["unique_graphs"]
    point, cond = question(adapter)
    with torch.no_grad():
        roles.fake_score(NoisyLatent(point.x_sigma[:1], point.sigma[:1]), cond.rows(slice(1)))
    assert counters["stats"]["unique_graphs"] == before + 2
