"""Networks that compute in bfloat16 on a CPU learn what those in float32 learn."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.distributed.world import World
from fewstep.roles.role import Roles
from tests.roles.test_lora import LORA, adapter, both, built, gradients, move, world  # noqa: F401


def student_gradients(roles: Roles, adapter: ModelAdapter, *, factors: bool) -> Tensor:  # noqa: F811
    if factors:
        move(roles.student, 1)
    taken = gradients(roles.student, adapter, during=roles.teacher)
    assert all(gradient.dtype == torch.float32 for gradient in taken.values())
    return torch.cat([gradient.flatten() for gradient in taken.values()])


@pytest.mark.numeric
@pytest.mark.parametrize("factors", [False, True])
def test_gradients_in_bf16_are_those_in_float32_up_to_its_rounding(
    adapter: ModelAdapter,  # noqa: F811
    world: World,  # noqa: F811
    factors: bool,
) -> None:
    build = both if factors else built
    exact = student_gradients(build(adapter, world), adapter, factors=factors)
    rounded = student_gradients(build(adapter, world, compute=torch.bfloat16), adapter, factors=factors)
    # each value is rounded by up to 2**-9 of itself, some ten times one after the other, forward and backward
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 20 * 2**-9


def noted_reads(adapter: ModelAdapter, patch: pytest.MonkeyPatch) -> list[torch.dtype]:  # noqa: F811
    """The precisions in which a network is read from now on."""
    asked: list[torch.dtype] = []
    load = type(adapter).load_network

    def noted(self: ModelAdapter, *, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        asked.append(dtype)
        return load(self, dtype=dtype)

    patch.setattr(type(adapter), "load_network", noted)
    return asked


@pytest.mark.parametrize("role", ["student", "teacher", "fake_score"])
def test_factors_sit_on_weights_that_are_read_in_the_precision_they_compute_in(
    adapter: ModelAdapter,  # noqa: F811
    world: World,  # noqa: F811
    role: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = noted_reads(adapter, monkeypatch)
    held = getattr(both(adapter, world, compute=torch.bfloat16), role)
    load = type(adapter).load_network

    def widened(self: ModelAdapter, *, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        return load(self, dtype=torch.float32)

    monkeypatch.setattr(type(adapter), "load_network", widened)
    through = getattr(both(adapter, world, compute=torch.bfloat16), role)
    assert asked[0] == torch.bfloat16
    weights = [dict(made.network.named_parameters()) for made in (held, through)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    buffers = [dict(made.network.named_buffers()) for made in (held, through)]
    assert all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[0])


@pytest.mark.parametrize("settings", [{}, {"compute": torch.bfloat16, "student": LORA}])
def test_whatever_is_trained_or_float32_is_read_in_float32(
    adapter: ModelAdapter,  # noqa: F811
    world: World,  # noqa: F811
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = noted_reads(adapter, monkeypatch)
    built(adapter, world, **settings)
    assert asked == [torch.float32]
