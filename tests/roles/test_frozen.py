"""A frozen network that is held in bf16 and computes in float32 with the others (``precision.frozen``)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.identity import config_hash, identity
from fewstep.config.recipe import load_recipe
from fewstep.distributed.sharding import local
from fewstep.distributed.world import World
from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.export.weights import read_student
from fewstep.roles.build import RoleSettings
from fewstep.roles.lora import is_factor, product
from tests.roles.test_lora import adapter, both, built, gradients, move, question, world  # noqa: F401
from tests.training.test_run import assert_same_state
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

BF16 = "precision.frozen=bf16"
ROLES = ("student", "fake_score")
FACTORS = [f"{role}.weights={{kind: lora, rank: 2}}" for role in ROLES]


def rounded(adapter: ModelAdapter) -> None:  # noqa: F811
    """Let the adapter load weights that lost what bf16 cannot hold."""
    load = type(adapter).load_network

    def loaded(*, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        network = load(adapter, dtype=dtype)
        for parameter in network.parameters():
            parameter.data = parameter.data.bfloat16().to(dtype)
        return network

    adapter.load_network = loaded  # type: ignore[method-assign]


@pytest.mark.parametrize("factors", [True, False])
def test_answers_and_gradients_are_those_of_the_rounded_teacher_in_float32(
    adapter: ModelAdapter,  # noqa: F811
    world: World,  # noqa: F811
    factors: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = both if factors else built
    held = make(adapter, world, frozen=torch.bfloat16)
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "load_network", adapter.load_network)  # is put back
        rounded(adapter)
        wide = make(adapter, world)
    for roles in (held, wide) if factors else ():
        move(roles.student, seed=1)
    asked = question(adapter)
    assert torch.equal(held.teacher(*asked), wide.teacher(*asked))
    if factors:
        ours, theirs = gradients(held.student, adapter), gradients(wide.student, adapter)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_only_frozen_weights_are_held_in_bf16(adapter: ModelAdapter, world: World) -> None:  # noqa: F811
    roles = both(adapter, world, frozen=torch.bfloat16)
    for name, parameter in roles.teacher.network.named_parameters():
        assert local(parameter).dtype == (torch.float32 if is_factor(name) else torch.bfloat16), name
    full = built(adapter, world, frozen=torch.bfloat16)
    assert {local(p).dtype for p in full.teacher.network.parameters()} == {torch.bfloat16}
    assert {local(p).dtype for p in full.student.network.parameters()} == {torch.float32}


def test_where_nothing_casts_it_is_refused(adapter: ModelAdapter) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r"precision.frozen casts weights .* serve cpu; set precision.frozen=null"):
        both(adapter, frozen=torch.bfloat16)
    assert not RoleSettings(compute=torch.bfloat16, frozen=torch.bfloat16).widened


def test_two_ways_to_hold_a_base_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision.frozen is bf16 and student.weights.base is nf4, but the base"):
        load_recipe("sd3-medium", [BF16, *(f"{role}.weights={{kind: lora, base: nf4}}" for role in ROLES)])


def test_it_is_another_run_and_without_it_names_stay() -> None:
    assert config_hash(load_recipe("digits", [BF16]).config) != config_hash(load_recipe("digits").config)
    assert "frozen" not in identity(load_recipe("digits").config)["precision"]


def test_a_stopped_run_goes_on_and_its_export_adds_the_factors_to_the_original_weights(tmp_path: Path) -> None:
    made = recipe(tmp_path, *FACTORS, BF16, "budget.student_updates=2")
    run(made, tmp_path / "whole")
    run_stopped_after(made, tmp_path / "run", steps=1)
    run(made, tmp_path / "run", resume=True)
    assert_same_state(saved_state(tmp_path / "run"), saved_state(tmp_path / "whole"))
    student = read_student(tmp_path / "run").weights.all()
    written = load_file(next((export(tmp_path / "run", tmp_path / "out").folder / "transformer").glob("*.safetensors")))
    original = load_file(next((tmp_path / "teacher" / "transformer").glob("*.safetensors")))
    for name, value in original.items():
        pair = [student.get(f"{name.removesuffix('.weight')}.lora_{letter}.weight") for letter in "BA"]
        added = 0.0 if pair[0] is None else product(pair[0], pair[1], scaling=1.0, shape=value.shape)
        torch.testing.assert_close(written[name], value + added, rtol=0, atol=1e-7)  # another sum of two products
