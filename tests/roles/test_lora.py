"""Low-rank factors of two roles on one base."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.backbones import create_model_adapter
from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.distributed.sharding import build_mesh, local
from fewstep.distributed.world import World, alone, join
from fewstep.errors import ConfigError
from fewstep.export.weights import merge_factors
from fewstep.roles.averaging import align, align_to_merged
from fewstep.roles.build import RoleSettings, build_roles
from fewstep.roles.lora import initial_factor
from fewstep.roles.role import Role, Roles
from fewstep.roles.weights import FullWeights, LoraWeights, alignment_problem
from tests.backbones import tiny

CPU = torch.device("cpu")
LORA = LoraWeights(rank=2, alpha=3.0)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> ModelAdapter:
    folder = tiny.save(tiny.sd3_pipeline(t5=False), tmp_path_factory.mktemp("lora") / "teacher")
    config = create_model_adapter(folder).default_config(str(folder), None, create_model_adapter(folder).components)
    size = {"height": 16, "width": 16, "max_sequence_length": 1}
    return create_model_adapter(folder, config.model_copy(update=size))


@pytest.fixture
def world() -> Iterator[World]:
    """A group of one process."""
    with join(CPU, timeout_minutes=1) as joined:
        yield joined


def question(adapter: ModelAdapter) -> tuple[NoisyLatent, Conditioning]:
    generator = torch.Generator().manual_seed(3)
    shape = adapter.latent_shape(adapter.config.height, adapter.config.width)
    width = adapter.components["transformer"]
    cond = {
        "prompt_embeds": torch.randn(2, 5, width["joint_attention_dim"], generator=generator),
        "pooled_prompt_embeds": torch.randn(2, width["pooled_projection_dim"], generator=generator),
    }
    return NoisyLatent(torch.randn(2, *shape, generator=generator), torch.tensor([0.9, 0.3])), Conditioning(cond)


def built(adapter: ModelAdapter, world: World | None = None, **settings: Any) -> Roles:
    mesh = None if world is None else build_mesh(world)
    return build_roles(adapter, RoleSettings(**settings), world or alone(CPU), mesh)


def both(adapter: ModelAdapter, world: World | None = None, **settings: Any) -> Roles:
    return built(adapter, world, student=LORA, fake_score=LORA, **settings)


def move(role: Role, seed: int) -> None:
    """As after training: no factor is zero."""
    generator = torch.Generator().manual_seed(seed)
    for value in role.weights().values():
        part = local(value.detach())
        part.copy_(0.2 * torch.randn(part.shape, generator=generator))


def gradients(role: Role, adapter: ModelAdapter, during: Role | None = None) -> dict[str, Tensor]:
    """Of a loss of the role's answer; ``during`` is asked between forward and backward."""
    point, cond = question(adapter)
    loss = role(point, cond).square().mean()
    if during is not None:
        with torch.no_grad():
            during(point, cond)
    loss.backward()
    taken = {name: local(p.grad).clone() for name, p in role.weights().items() if p.grad is not None}
    for value in role.weights().values():
        value.grad = None
    return taken


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_fresh_factors_answer_exactly_as_their_base(adapter: ModelAdapter, world: World, compute: torch.dtype) -> None:
    roles = both(adapter, world, compute=compute)
    answers = [role(*question(adapter)) for role in (roles.student, roles.teacher, roles.fake_score)]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[2], answers[1])


def test_teacher_student_and_fake_score_share_one_network(adapter: ModelAdapter) -> None:
    roles = both(adapter)
    assert roles.student.network is roles.teacher.network is roles.fake_score.network
    assert not roles.teacher.weights()
    assert roles.student.weights().keys() == roles.fake_score.weights().keys()
    assert not set(map(id, roles.student.weights().values())) & set(map(id, roles.fake_score.weights().values()))


def test_the_base_is_held_in_the_compute_precision_and_factors_in_float32(adapter: ModelAdapter) -> None:
    roles = both(adapter, compute=torch.bfloat16)
    dtypes = {parameter.requires_grad: set() for parameter in roles.student.network.parameters()}
    for parameter in roles.student.network.parameters():
        dtypes[parameter.requires_grad].add(parameter.dtype)
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}


def test_both_roles_start_from_the_same_factors(adapter: ModelAdapter) -> None:
    roles = both(adapter, seed=5)
    student, fake = roles.student.weights(), roles.fake_score.weights()
    assert all(torch.equal(value, fake[name]) for name, value in student.items())
    assert any(value.abs().max() > 0 for value in student.values())
    name, value = next((name, value) for name, value in student.items() if "lora_A" in name)
    assert torch.equal(value, initial_factor(name, value.shape, seed=5))
    assert not torch.equal(value, initial_factor(name, value.shape, seed=6))


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("checkpointing", [True, "selective"])
def test_recomputation_uses_the_factors_of_the_forward(
    adapter: ModelAdapter, world: World, checkpointing: Any, spread: bool
) -> None:
    place = world if spread else None
    plain, recomputed = both(adapter, place), both(adapter, place, checkpointing=checkpointing)
    for roles in (plain, recomputed):
        move(roles.student, 1)
        move(roles.fake_score, 2)
    expected = gradients(plain.student, adapter)
    for other in (recomputed.fake_score, recomputed.teacher):
        ours = gradients(recomputed.student, adapter, during=other)
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


def test_plain_checkpointing_would_recompute_with_other_factors(adapter: ModelAdapter) -> None:
    """The reason for our checkpoint function; when peft or torch guard against this, it can go."""
    roles = both(adapter)
    move(roles.student, 1)
    move(roles.fake_score, 2)
    expected = gradients(roles.student, adapter)
    roles.student.network.enable_gradient_checkpointing()
    point, cond = question(adapter)
    loss = roles.student(point, cond).square().mean()
    assert roles.fake_score.switch is not None
    with roles.fake_score.switch.use("fake_score"):
        loss.backward()
    wrong = {name: p.grad for name, p in roles.student.weights().items() if p.grad is not None}
    difference = sum((wrong[n] - v).square().sum() for n, v in expected.items() if n in wrong)
    assert difference > 0.01 * sum(v.square().sum() for v in expected.values())


def test_switching_keeps_every_factor_trainable(adapter: ModelAdapter) -> None:
    roles = both(adapter)
    for role in (roles.fake_score, roles.teacher, roles.student):
        role(*question(adapter))
    assert all(value.requires_grad for value in roles.student.weights().values())
    assert len(roles.student.weights()) == len(roles.fake_score.weights()) > 0


def test_the_switch_of_peft_would_freeze_the_other_role(adapter: ModelAdapter) -> None:
    """The reason for our switch; when peft leaves requires_grad alone, it can go."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    roles = both(adapter)
    for module in roles.student.network.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter("fake_score")
    assert roles.student.weights() == {}


def test_gradients_reach_only_the_factors_of_the_role_that_answers(adapter: ModelAdapter) -> None:
    roles = both(adapter)
    move(roles.student, 1)
    point, cond = question(adapter)
    roles.student(point, cond).square().mean().backward()
    assert all(value.grad is None for value in roles.fake_score.weights().values())
    frozen = [p for p in roles.student.network.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)


def test_alignment_averages_the_factors_one_by_one(adapter: ModelAdapter) -> None:
    roles = both(adapter)
    move(roles.student, 1)
    before = {name: value.detach().clone() for name, value in roles.fake_score.weights().items()}
    align(roles.fake_score.weights(), roles.student.weights(), decay=0.75)
    for name, value in roles.fake_score.weights().items():
        torch.testing.assert_close(value.detach(), 0.75 * before[name] + 0.25 * roles.student.weights()[name].detach())


@pytest.mark.parametrize("spread", [False, True])
def test_a_full_fake_score_follows_the_merged_student(adapter: ModelAdapter, world: World, spread: bool) -> None:
    roles = built(adapter, world if spread else None, student=LORA)
    move(roles.student, 1)
    align_to_merged(roles.fake_score.weights(), roles.student, LORA, decay=0.0)
    torch.testing.assert_close(
        roles.fake_score(*question(adapter)), roles.student(*question(adapter)), rtol=1e-4, atol=1e-5
    )
    assert (roles.teacher(*question(adapter)) - roles.student(*question(adapter))).abs().max() > 1e-3


def test_merged_factors_answer_as_the_student_did(adapter: ModelAdapter) -> None:
    roles = both(adapter)
    move(roles.student, 1)
    network = adapter.load_network()
    factors = {name: value.detach() for name, value in roles.student.weights().items()}
    merge_factors(network, factors, scaling=LORA.scaling, origin="a run")
    merged = Role(network, adapter)(*question(adapter))
    torch.testing.assert_close(merged, roles.student(*question(adapter)), rtol=1e-4, atol=1e-5)


def test_own_targets_are_taken_and_unknown_ones_are_refused(adapter: ModelAdapter) -> None:
    few = built(adapter, student=LoraWeights(rank=2, targets=("to_q",)), fake_score=FullWeights())
    assert {name.split(".")[-3] for name in few.student.weights()} == {"to_q"}
    with pytest.raises(ConfigError, match=r"student.weights.targets is to_nowhere, but no layer of .* such a name"):
        built(adapter, student=LoraWeights(targets=("to_nowhere",)))


@pytest.mark.parametrize(
    ("student", "fake_score", "problem"),
    [
        (FullWeights(), FullWeights(), None),
        (LORA, LORA, None),
        (LORA, FullWeights(), None),
        (FullWeights(), LORA, "student.weights is full and fake_score.weights is lora"),
        (LORA, LoraWeights(rank=4), r"student.weights \(rank 2, scaling 1.5"),
        (LORA, LoraWeights(rank=2, alpha=3.0, targets=("to_q",)), "differ: alignment averages their factors"),
    ],
)
def test_alignment_says_which_weights_it_cannot_average(student: Any, fake_score: Any, problem: str | None) -> None:
    import re

    said = alignment_problem(student, fake_score)
    assert said is None if problem is None else (said is not None and re.match(problem, said)) or problem in str(said)
