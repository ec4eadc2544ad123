"""AdamW's moments in 8 bits: what they are, what they cost, and that a run goes on with them bit for bit."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from fewstep.config.identity import config_hash, identity
from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import OptimiserConfig
from fewstep.distributed.world import alone
from fewstep.errors import ConfigError
from fewstep.roles.moments import is_packed, pack, packed_bytes, unpack
from fewstep.training.optimiser import RoleOptimiser
from fewstep.training.preparing import require_moments
from tests.training.test_run import assert_same_state
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'fewstep[quantised]'"
)
EIGHT = tuple(f"{role}.moments=8bit" for role in ("student", "fake_score"))


def optimiser(weight: nn.Parameter, moments: str, **settings: float) -> RoleOptimiser:
    config = OptimiserConfig.model_validate({"lr": 1e-2, "warmup": 0, "clip": None, "moments": moments, **settings})
    return RoleOptimiser({"weight": weight}, config, total_updates=100)


@needs_bitsandbytes
@pytest.mark.parametrize("shape", [(40, 300), (70, 64), (9, 8, 3, 3)])
@pytest.mark.parametrize("signed", [True, False])
def test_a_moment_is_near_to_what_was_stored_and_takes_as_many_bytes_as_planned(
    shape: tuple[int, ...], signed: bool
) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    value = value if signed else value.square()
    codes, scales = pack(value, signed=signed)
    assert codes.nbytes + scales.nbytes == packed_bytes(shape[0], value[0].numel())
    # the map's steps are at most 1/64 of a block's largest number
    assert (unpack(codes, scales, signed=signed) - value).abs().max() <= value.abs().max() / 64


@needs_bitsandbytes
def test_rows_are_rounded_on_their_own_wherever_they_are_cut() -> None:
    value = torch.randn(30, 300)
    whole, parts = pack(value, signed=True), [pack(part, signed=True) for part in (value[:17], value[17:], value[30:])]
    for ours, theirs in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(ours, torch.cat(theirs))


@needs_bitsandbytes
def test_zeros_stay_zero() -> None:
    for signed in (True, False):
        assert not unpack(*pack(torch.zeros(8, 600), signed=signed), signed=signed).any()


@needs_bitsandbytes
def test_an_update_follows_that_of_float32_moments() -> None:
    """Over steps of one sign, which every weight makes at its full rate: rounding of moments hardly shows."""
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(64, 300, generator=generator), 0.5 + torch.rand(64, 300, generator=generator)
    ends = []
    for moments in ("fp32", "8bit"):
        weight = nn.Parameter(start.clone())
        made = optimiser(weight, moments)
        for _ in range(10):
            weight.grad = gradient.clone()
            made.update()
        assert made.steps().tolist() == [10.0]
        ends.append(start - weight.detach())
    # a moment is at least a third of its block's largest number, so that half a step of 1/64 is 3/128 of it; it is
    # rounded again at every update, hence twice that
    torch.testing.assert_close(ends[1], ends[0], rtol=6 / 128, atol=0)


@needs_bitsandbytes
def test_a_weight_without_a_gradient_stays_and_counts_nothing() -> None:
    weight = nn.Parameter(torch.randn(64, 300))
    made, before = optimiser(weight, "8bit"), weight.detach().clone()
    made.update()
    assert torch.equal(weight, before) and made.steps().tolist() == [0.0]


def test_small_weights_and_vectors_keep_float32() -> None:
    assert not is_packed((100_000,)) and not is_packed((60, 64)) and is_packed((64, 64))


@needs_bitsandbytes
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    made = recipe(tmp_path, *EIGHT)
    run(made, tmp_path / "whole")
    run_stopped_after(made, tmp_path / "run", steps=3)
    run(made, tmp_path / "run", resume=True)
    saved = saved_state(tmp_path / "run")
    assert_same_state(saved, saved_state(tmp_path / "whole"))
    codes = [name for name, value in saved.items() if isinstance(value, torch.Tensor) and value.dtype == torch.uint8]
    assert any(name.startswith("student_optimiser.exp_avg.") for name in codes)
    assert any(name.startswith("fake_score_optimiser.exp_avg_sq.") for name in codes)


def test_a_missing_package_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = recipe(tmp_path, EIGHT[0]).config
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^student.moments is 8bit, .* pip install 'fewstep\[quantised\]'\.$"):
        require_moments(config, alone(torch.device("cpu")))


def test_a_device_that_bitsandbytes_does_not_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fake_score.moments is 8bit, .* this run's device is meta; set it to fp32"):
        require_moments(recipe(tmp_path, EIGHT[1]).config, alone(torch.device("meta")))


def test_it_is_another_run_and_without_it_names_stay() -> None:
    assert config_hash(load_recipe("digits", EIGHT).config) != config_hash(load_recipe("digits").config)
    settings = identity(load_recipe("digits").config)
    assert "moments" not in settings["student"] and "moments" not in settings["fake_score"]
