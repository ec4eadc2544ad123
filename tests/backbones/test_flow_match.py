"""Schedulers that make the student's grid of a number of steps alone."""

import pytest
import torch

from fewstep.backbones.flow_match import scheduler_with_own_grid, shifting_scheduler
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


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_evenly_spaced_levels_that_a_pipeline_gives_are_shifted_to_the_grid(shift: float, steps: int) -> None:
    levels = torch.linspace(1.0, 1 / steps, steps)
    sigmas = time_shift(levels, shift)
    # what the teacher's scheduler does besides is the grid's own already
    stock = {"shift": 7.0, "use_dynamic_shifting": True, "shift_terminal": 0.02}
    scheduler = shifting_scheduler(sigmas.tolist(), stock)
    assert scheduler is not None
    scheduler.set_timesteps(sigmas=levels.tolist(), mu=1.3)
    torch.testing.assert_close(scheduler.sigmas, torch.cat([sigmas, torch.zeros(1)]), rtol=0, atol=5e-7)


def test_the_usual_levels_are_even_ones_under_a_shift_of_three() -> None:
    scheduler = shifting_scheduler([1.0, 0.9, 0.75, 0.5], {})
    assert scheduler is not None and scheduler.config.shift == pytest.approx(3.0)


@pytest.mark.parametrize("sigmas", [[1.0, 0.9, 0.7, 0.4], [0.9, 0.6, 0.3], [1.0, 1.0, 0.5], [1.0, 0.5, 1.0]])
def test_a_grid_that_no_shift_makes_has_to_be_given(sigmas: list[float]) -> None:
    assert shifting_scheduler(sigmas, {}) is None
