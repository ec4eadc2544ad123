"""Compiled blocks whose factors are switched between calls."""

import shutil
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from fewstep.backbones import create_model_adapter
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config import load_recipe
from fewstep.core.points import NoisyLatent
from fewstep.distributed.world import World
from fewstep.errors import ConfigError
from fewstep.roles.compilation import Compilation, compile_blocks, require_graphs
from fewstep.roles.role import Roles
from fewstep.testing.closeness import assert_rounded_alike
from fewstep.training.run import role_settings
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


OTHERS: tuple[Compilation, ...] = ("reduce-overhead", "max-autotune-no-cudagraphs")
MODES: tuple[Compilation, ...] = ("max-autotune", *OTHERS)


class Block(nn.Module):
    """As much of a block as shows how it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.inner(x))


@pytest.mark.parametrize("mode", MODES)
def test_graphs_are_recorded_of_forwards_without_a_gradient_alone(
    mode: Compilation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[bool, list[dict[str, Any]]] = {True: [], False: []}

    def record(graph: Any, inputs: Any, options: dict[str, Any]) -> Any:
        asked[torch.is_grad_enabled()].append(options)
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.compile", record)
    network = nn.Sequential(Block(), Block())
    compile_blocks(network, {"Block"}, mode)
    network(torch.ones(2, 4, requires_grad=True)).sum().backward()
    with torch.no_grad():
        network(torch.ones(2, 4))
    graphs = {
        with_gradient: {"triton.cudagraphs" in one for one in options} for with_gradient, options in asked.items()
    }
    assert graphs == {True: {False}, False: {mode != "max-autotune-no-cudagraphs"}}
    assert {"max_autotune" in one for options in asked.values() for one in options} == {mode != "reduce-overhead"}
    assert len(asked[True]) == len(asked[False]) == 1  # one compilation serves both blocks


@pytest.mark.parametrize(("mode", "marks"), [("reduce-overhead", 3), ("max-autotune-no-cudagraphs", 0)])
def test_a_call_without_a_gradient_is_one_step_of_the_recordings(
    mode: Compilation, marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(torch.is_grad_enabled()))
    torch._dynamo.reset()
    network = nn.Sequential(Block(), Block())
    compile_blocks(network, {"Block"}, mode, backend="eager")
    network(torch.ones(2, 4))
    with torch.no_grad():
        for _ in range(3):
            network(torch.ones(2, 4))
    assert begun == [False] * marks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_computes_the_answers_and_gradients_of_the_plain_network(mode: Compilation) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain, compiled = (nn.Sequential(*(Block() for _ in range(2))) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compile_blocks(compiled, {"Block"}, mode)
    for samples in (6, 2, 6):  # any number of them, of several tokens each
        x = torch.randn(samples, 5, 4)
        with torch.no_grad():  # where there is no GPU, nothing is recorded
            assert_rounded_alike(compiled(x), plain(x), terms=8)
        for network in (plain, compiled):
            network(x).square().sum().backward()
        for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
            assert ours.grad is not None and theirs.grad is not None
            assert_rounded_alike(ours.grad, theirs.grad, terms=14 * 5 * 4)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (
            World(torch.device("cpu")),
            "memory.compiled is reduce-overhead, which records CUDA graphs, but this run's device is cpu; set it to "
            "max-autotune-no-cudagraphs or true.",
        ),
        (
            World(torch.device("cuda"), size=2),
            "memory.compiled is reduce-overhead, which records CUDA graphs of weights that stay where they are, but 2 "
            "processes were started and gather them for each use; start one, or set it to max-autotune-no-cudagraphs "
            "or true.",
        ),
    ],
)
def test_graphs_that_cannot_be_recorded_are_refused(world: World, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        require_graphs("reduce-overhead", world)
    assert str(raised.value) == said


def test_modes_without_graphs_ask_for_no_device() -> None:
    for kind in (True, False, "max-autotune-no-cudagraphs"):
        require_graphs(kind, World(torch.device("cpu"), size=2))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["true", *MODES])
def test_weights_of_recorded_graphs_are_not_spread(mode: str) -> None:
    settings = role_settings(load_recipe("sana-600m", [f"memory.compiled={mode}"]).config)
    assert settings.spread_alone == (mode in ("true", "max-autotune-no-cudagraphs"))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_replayed_recordings_answer_as_the_network_does(mode: Compilation, adapter: ModelAdapter) -> None:
    torch._dynamo.reset()
    plain, compiled = (roles_of(adapter) for _ in range(2))
    compile_blocks(compiled.student.network, adapter.block_classes, mode)
    for roles in (plain, compiled):
        roles.student.network.cuda()
    point, cond = question(adapter)
    point, cond = NoisyLatent(point.x_sigma.cuda(), point.sigma.cuda()), cond.to(torch.device("cuda"))
    kept = []
    with torch.no_grad():
        for rows in (2, 1, 2, 1, 2, 1, 2):  # warm-up, recording and replay of both sizes, every answer kept
            told = NoisyLatent(point.x_sigma[:rows], point.sigma[:rows]), cond.rows(slice(rows))
            for name in ("student", "fake_score", "teacher"):
                kept.append([getattr(roles, name)(*told) for roles in (compiled, plain)])
    for ours, theirs in kept:
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max()))
