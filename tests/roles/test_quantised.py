"""A frozen base in few bits under the factors of two roles."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.points import NoisyLatent
from fewstep.distributed.world import World, alone
from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.export.weights import read_student
from fewstep.roles.averaging import align, align_to_merged
from fewstep.roles.build import RoleSettings, build_roles
from fewstep.roles.lora import product
from fewstep.roles.quantised import QuantisedLinear, quantised_layers
from fewstep.roles.role import Roles
from fewstep.roles.weights import LoraWeights
from tests.roles.test_lora import CPU, adapter, gradients, move, question, world
from tests.training.test_run import metrics
from tests.training.tiny_run import recipe, run, saved_state

__all__ = ["adapter", "world"]  # fixtures

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'fewstep[quantised]'"
)
BITS = pytest.mark.parametrize("base", ["int8", "nf4"])
# largest part of a normal weight's length that rounding to 8 and to 4 bits may change
ROUNDING = {"int8": 0.01, "nf4": 0.11}


def lora(base: Any) -> LoraWeights:
    return LoraWeights(rank=2, alpha=3.0, base=base)


def both(adapter: ModelAdapter, base: str, place: World | None = None, **settings: Any) -> Roles:
    chosen = RoleSettings(student=lora(base), fake_score=lora(base), **settings)
    return build_roles(adapter, chosen, place or alone(CPU))


def num_bytes(network: nn.Module) -> int:
    """Of the blocks' weight matrices and what belongs to them."""
    blocks = [module for module in network.modules() if type(module).__name__ == "JointTransformerBlock"]
    held = [value for block in blocks for value in [*block.parameters(), *block.buffers()] if not value.requires_grad]
    return sum(value.numel() * value.element_size() for value in held)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# --- one layer


@needs_bitsandbytes
@BITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_weight_that_answers(base: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(96, 48, dtype=dtype)
    layer = QuantisedLinear(plain, base)
    layer.store(plain.weight.detach().float())
    x = torch.randn(3, 5, 96, dtype=dtype, requires_grad=True)
    answer = layer(x)
    assert torch.equal(answer, nn.functional.linear(x, layer.widened(dtype), plain.bias))
    asked = torch.randn_like(answer)
    (gradient,) = torch.autograd.grad(answer, x, asked)
    torch.testing.assert_close(gradient, asked @ layer.widened(dtype))


@needs_bitsandbytes
@BITS
def test_the_widened_weight_is_near_to_the_stored_one(base: Any) -> None:
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(0))
    layer = QuantisedLinear(nn.Linear(96, 48), base)
    layer.store(weight)
    assert 0 < relative(layer.widened(torch.float32), weight) < ROUNDING[base]


@needs_bitsandbytes
@BITS
def test_the_wide_weight_does_not_wait_for_the_backward(base: Any) -> None:
    layer = QuantisedLinear(nn.Linear(96, 48), base)
    layer.store(torch.randn(48, 96))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        layer(torch.randn(2, 96, requires_grad=True))
    assert not [value.shape for value in kept if value.numel() >= 48 * 96]


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="it repacks only with AVX512-BF16")
def test_the_layer_of_bitsandbytes_would_lose_the_gradient_after_a_forward_without_one() -> None:
    """A reason for our layer; when bitsandbytes keeps the gradient, one of two reasons is gone."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    theirs = Linear4bit(128, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
    theirs.weight = Params4bit(torch.randn(64, 128), requires_grad=False, quant_type="nf4", module=theirs)
    ours = QuantisedLinear(nn.Linear(128, 64, bias=False), "nf4")
    ours.store(torch.randn(64, 128))
    reached = []
    for layer in (theirs.to("cpu").eval(), ours.eval()):
        x = torch.randn(2, 128, dtype=torch.bfloat16)
        with torch.no_grad():
            layer(x)
        layer(x.requires_grad_()).sum().backward()
        reached.append(x.grad is not None)
    assert reached == [False, True]


# --- roles


@needs_bitsandbytes
@BITS
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_fresh_factors_answer_exactly_as_the_quantised_base(
    adapter: ModelAdapter, world: World, base: str, compute: torch.dtype
) -> None:
    roles = both(adapter, base, world, compute=compute)
    answers = [role(*question(adapter)) for role in (roles.student, roles.teacher, roles.fake_score)]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[2], answers[1])


@needs_bitsandbytes
@BITS
def test_every_linear_layer_of_the_blocks_is_quantised_and_no_other(adapter: ModelAdapter, base: str) -> None:
    network = both(adapter, base).teacher.network
    plain = dict(adapter.load_network().named_modules())
    expected = {
        name
        for name, module in plain.items()
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks.")
    }
    assert {name for name, _ in quantised_layers(network)} == expected
    for name, layer in quantised_layers(network):
        assert relative(layer.widened(torch.float32), plain[name].weight.detach()) < 2 * ROUNDING[base]


@needs_bitsandbytes
def test_the_base_takes_half_and_a_third_of_the_memory(adapter: ModelAdapter) -> None:
    held = {base: num_bytes(both(adapter, base, compute=torch.bfloat16).teacher.network) for base in
            ("compute", "int8", "nf4")}  # fmt: skip
    # the tiny blocks have biases and short rows with a scale each; at full size the ratios are 0.50 and 0.28
    assert held["int8"] < 0.65 * held["compute"] and held["nf4"] < 0.40 * held["compute"]


@needs_bitsandbytes
@BITS
def test_gradients_reach_only_the_factors_of_the_role_that_answers(adapter: ModelAdapter, base: str) -> None:
    roles = both(adapter, base)
    move(roles.student, 1)
    roles.student(*question(adapter)).square().mean().backward()
    reached = {name for name, value in roles.student.network.named_parameters() if value.grad is not None}
    assert reached and all(".student." in name and ".lora_" in name for name in reached)
    assert all(not buffer.requires_grad for buffer in roles.student.network.buffers())


@needs_bitsandbytes
@BITS
@pytest.mark.parametrize("checkpointing", [True, "selective"])
def test_recomputation_gives_the_same_gradients_on_a_quantised_base(
    adapter: ModelAdapter, base: str, checkpointing: Any
) -> None:
    plain, recomputed = both(adapter, base), both(adapter, base, checkpointing=checkpointing)
    for roles in (plain, recomputed):
        move(roles.student, 1)
        move(roles.fake_score, 2)
    expected = gradients(plain.student, adapter)
    ours = gradients(recomputed.student, adapter, during=recomputed.fake_score)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


@needs_bitsandbytes
@BITS
def test_a_samples_answer_does_not_depend_on_the_others_of_its_batch(adapter: ModelAdapter, base: str) -> None:
    role = both(adapter, base).teacher
    point, cond = question(adapter)
    alone_answer = role(NoisyLatent(point.x_sigma[:1], point.sigma[:1]), cond.rows(slice(0, 1)))
    torch.testing.assert_close(role(point, cond)[:1], alone_answer, rtol=1e-5, atol=1e-6)


@needs_bitsandbytes
@BITS
def test_alignment_averages_factors_on_a_quantised_base_one_by_one(adapter: ModelAdapter, base: str) -> None:
    roles = both(adapter, base)
    move(roles.student, 1)
    before = {name: value.detach().clone() for name, value in roles.fake_score.weights().items()}
    align(roles.fake_score.weights(), roles.student.weights(), decay=0.75)
    for name, value in roles.fake_score.weights().items():
        torch.testing.assert_close(value.detach(), 0.75 * before[name] + 0.25 * roles.student.weights()[name].detach())


@needs_bitsandbytes
@BITS
def test_a_full_fake_score_follows_the_student_as_it_computes(adapter: ModelAdapter, base: str) -> None:
    roles = build_roles(adapter, RoleSettings(student=lora(base)), alone(CPU))
    move(roles.student, 1)
    align_to_merged(roles.fake_score.weights(), roles.student, lora(base), decay=0.0)
    torch.testing.assert_close(
        roles.fake_score(*question(adapter)), roles.student(*question(adapter)), rtol=1e-4, atol=1e-5
    )


# --- runs


WEIGHTS = "{{kind: lora, rank: 2, alpha: 3.0, base: {}}}"


def overrides(base: str) -> tuple[str, ...]:
    return tuple(f"{role}.weights={WEIGHTS.format(base)}" for role in ("student", "fake_score"))


@needs_bitsandbytes
@BITS
def test_a_run_on_a_quantised_base_trains_and_its_export_is_the_original_base_with_the_factors(
    tmp_path: Path, base: str
) -> None:
    made = recipe(tmp_path, *overrides(base), "student.every=1", "budget.student_updates=2", "precision.compute=bf16")
    run(made, tmp_path / "run")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1]
    student = read_student(tmp_path / "run").weights.all()
    assert any(bool(value.any()) for name, value in student.items() if ".lora_B." in name)
    written = load_file(next((export(tmp_path / "run", tmp_path / "out").folder / "transformer").glob("*.safetensors")))
    original = load_file(next((tmp_path / "teacher" / "transformer").glob("*.safetensors")))
    for name, value in original.items():
        pair = [student.get(f"{name.removesuffix('.weight')}.lora_{letter}.weight") for letter in "BA"]
        added = 0.0 if pair[0] is None else product(pair[0], pair[1], scaling=1.5, shape=value.shape)
        torch.testing.assert_close(written[name], value + added, rtol=0, atol=1e-7)


@needs_bitsandbytes
def test_a_resumed_run_on_a_quantised_base_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    run(recipe(tmp_path, *overrides("nf4"), "budget.student_updates=2"), tmp_path / "whole")
    run(recipe(tmp_path, *overrides("nf4"), "budget.student_updates=1"), tmp_path / "parts")
    run(recipe(tmp_path, *overrides("nf4"), "budget.student_updates=2"), tmp_path / "parts", resume=True)
    whole, parts = saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts")
    assert whole.keys() == parts.keys() and not [name for name in whole if "base_layer" in name]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items() if isinstance(value, Tensor))


# --- refusals


def test_two_bases_for_two_sets_of_factors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student.weights.base is int8 and fake_score.weights.base is compute, but"):
        recipe(tmp_path, overrides("int8")[0], overrides("compute")[1])


@pytest.mark.parametrize("other", ["offload.teacher", "offload.trained"])
def test_a_quantised_base_is_not_offloaded(tmp_path: Path, other: str) -> None:
    with pytest.raises(ConfigError, match=rf"student.weights.base is nf4 and memory.{other} is true, but a"):
        recipe(tmp_path, *overrides("nf4"), f"memory.{other}=true")
    recipe(tmp_path, *overrides("compute"), f"memory.{other}=true")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (World(CPU, rank=0, size=2), "student.weights.base is nf4, which only one process can train on, but 2 were"),
        (alone(torch.device("mps")), "student.weights.base is nf4, .* but this run's device is mps; set it to compute"),
    ],
)
def test_what_cannot_hold_a_quantised_base_is_said_before_anything_is_loaded(
    adapter: ModelAdapter, monkeypatch: pytest.MonkeyPatch, place: World, said: str
) -> None:
    monkeypatch.setattr(type(adapter), "load_network", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match=said):
        both(adapter, "nf4", place)


def test_a_missing_package_is_named_before_prompts_are_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name))
    with pytest.raises(ConfigError, match=r"fake_score.*base is int8.* pip install 'fewstep\[quantised\]'\.$"):
        run(recipe(tmp_path, overrides("int8")[1], "fake_score.align=null"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_role_without_factors_leaves_the_base_alone() -> None:
    assert RoleSettings().base == "compute"
    assert RoleSettings(fake_score=lora("int8")).base == "int8"
