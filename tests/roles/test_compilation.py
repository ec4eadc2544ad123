"""Compiled blocks whose factors are switched between calls."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Compiled:
    """Roles whose blocks are compiled, what they answered twice over, and the graphs made until then."""

    roles: Roles
    answers: list[list[torch.Tensor]]
    graphs: list[int]


@pytest.fixture(
    scope="module",
    params=[False, *(pytest.param(chosen, marks=pytest.mark.slow) for chosen in (True, "selective"))],
)
def compiled(request: pytest.FixtureRequest, adapter: ModelAdapter) -> Compiled:
    torch._dynamo.reset()  # what another test compiled would serve
    roles = roles_of(adapter, checkpointing=request.param)
    compile_blocks(roles.student.network, adapter.block_classes, backend="aot_eager")
    answers, graphs = [], [counters["stats"]["unique_graphs"]]
    for _ in range(2):
        answers.append(one_step(roles, adapter))
        graphs.append(counters["stats"]["unique_graphs"])
    return Compiled(roles, answers, graphs)


def test_a_switch_between_roles_changes_the_answer_and_compiles_nothing(
    adapter: ModelAdapter, compiled: Compiled
) -> None:
    expected = one_step(roles_of(adapter), adapter)
    for answers in compiled.answers:
        # operations that are split into others round once more: float32 through a few sums of some hundred terms
        for ours, theirs in zip(answers, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))
    assert compiled.graphs[0] < compiled.graphs[1] == compiled.graphs[2]


def test_blocks_are_still_compiled_after_more_compilations_than_torch_keeps(
    adapter: ModelAdapter, compiled: Compiled
) -> None:
    # there are two blocks of different shape already, under two roles with a gradient and two without
    before = counters["stats"]["unique_graphs"]
    point, cond = question(adapter)
    with torch.no_grad():
        compiled.roles.fake_score(NoisyLatent(point.x_sigma[:1], point.sigma[:1]), cond.rows(slice(1)))
    assert counters["stats"]["unique_graphs"] == before + 2
