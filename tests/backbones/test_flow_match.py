"""A scheduler that makes the student's grid by itself, for pipelines that are given none."""

import pytest
import torch

from fewstep.backbones.flow_match import scheduler_with_own_grid
from fewstep.core.flow import time_shift
from fewstep.errors import ConfigError


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0, 12.0])
@pytest.mark.parametrize(("steps", "lowest"), [(1, 1.0), (2, 0.5), (3, 0.2), (4, 0.25), (8, 0.125)])
def test_an_even_grid_under_any_time_shift_is_the_schedulers_own(shift: float, steps: int, lowest: float) -> None:
    sigmas = time_shift(torch.linspace(1.0, lowest, steps), shift)
    scheduler = scheduler_with_own_grid(sigmas.tolist(), model="M")
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(scheduler.sigmas, torch.cat([sigmas, torch.zeros(1)]), rtol=0, atol=5e-7)
    torch.testing.assert_close(scheduler.timesteps, 1000 * sigmas, rtol=0, atol=5e-4)


@pytest.mark.parametrize("sigmas", [[1.0, 0.9, 0.7, 0.4], [0.9, 0.6, 0.3], [1.0, 0.999, 0.001]])
def test_another_grid_is_refused(sigmas: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"no scheduler of diffusers makes .* of \d steps; space sampling"):
        scheduler_with_own_grid(sigmas, model="M")
