"""Networks that compute in bfloat16 on a CPU learn what those in float32 learn."""

import pytest
import torch
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.distributed.world import World
from fewstep.roles.role import Roles
from tests.roles.test_lora import adapter, both, built, gradients, move, world  # noqa: F401


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
