"""The clock of variance-preserving checkpoints, against diffusers' own schedulers."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from fewstep.backbones.configurations import complete
from fewstep.backbones.vp_schedule import VPSchedule
from fewstep.errors import ConfigError

LINEAR = {"_class_name": "DPMSolverMultistepScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SCALED = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
BOTH = pytest.mark.parametrize("file", [LINEAR, SCALED], ids=["linear", "scaled_linear"])


def schedule(file: dict[str, Any] = LINEAR, **changes: Any) -> VPSchedule:
    return VPSchedule(complete({**file, **changes}, place="a file"), model="somebody/model")


def betas(file: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != "_class_name"}


def noise_levels(scheduler: Any, times: torch.Tensor) -> torch.Tensor:
    signal = scheduler.alphas_cumprod[times].double().sqrt()
    noise = (1 - scheduler.alphas_cumprod[times].double()).sqrt()
    return noise / (signal + noise)


@BOTH
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 50, 1000])
def test_uniform_levels_are_the_trailing_time_steps_of_ddim(file: dict[str, Any], steps: int) -> None:
    stock = DDIMScheduler(**betas(file), timestep_spacing="trailing")
    stock.set_timesteps(steps)
    sigmas = schedule(file).sigma(torch.linspace(1.0, 1.0 / steps, steps))
    torch.testing.assert_close(sigmas, noise_levels(stock, stock.timesteps).float(), rtol=0, atol=0)
    assert schedule(file).time(sigmas).tolist() == stock.timesteps.tolist()


def test_four_steps_of_pixart_and_stable_diffusion() -> None:
    levels = torch.tensor([1.0, 0.75, 0.5, 0.25])
    pixart, sd = schedule(LINEAR).sigma(levels), schedule(SCALED).sigma(levels)
    torch.testing.assert_close(pixart, torch.tensor([0.99369, 0.94520, 0.77397, 0.48795]), rtol=0, atol=1e-5)
    torch.testing.assert_close(sd, torch.tensor([0.93596, 0.80322, 0.61728, 0.40940]), rtol=0, atol=1e-5)


@BOTH
def test_every_whole_time_survives_the_way_there_and_back(file: dict[str, Any]) -> None:
    times = torch.arange(1000)
    clock = schedule(file)
    sigmas = clock.sigma((times + 1) / 1000)
    assert torch.equal(sigmas, noise_levels(DDIMScheduler(**betas(file)), times).float())
    assert torch.equal(clock.time(sigmas), times.float())


@BOTH
def test_levels_rise_to_the_largest_noise_level_and_fall_to_none(file: dict[str, Any]) -> None:
    clock = schedule(file)
    sigmas = clock.sigma(torch.linspace(0, 1, 5001))
    assert (sigmas.diff() > 0).all()
    assert sigmas[0] == 0.0
    assert float(sigmas[-1]) == clock.sigma_max < 1.0


@given(st.floats(0.0, 1.0))
def test_between_time_steps_the_clock_runs_both_ways(level: float) -> None:
    clock = schedule()
    time = float(clock.time(clock.sigma(torch.tensor([level]))))
    # a float32 noise level near .99 tells time steps apart to a thousandth
    assert time == pytest.approx(max(1000 * level - 1, 0.0), abs=3e-3)


def test_noise_levels_outside_the_trained_range_keep_the_first_and_last_time() -> None:
    assert schedule(SCALED).time(torch.tensor([0.0, 0.01, 0.95, 1.0])).tolist() == [0.0, 0.0, 999.0, 999.0]


def test_levels_of_any_shape_are_mapped() -> None:
    levels = torch.tensor([[1.0, 0.5], [1.0, 0.75]])
    assert torch.equal(schedule().sigma(levels)[:, 1], schedule().sigma(levels[:, 1]))


def test_trained_betas_take_the_place_of_a_formula() -> None:
    listed = torch.linspace(1e-4, 0.02, 1000).tolist()
    levels = torch.linspace(0, 1, 41)
    own = schedule({"_class_name": "DDPMScheduler", "trained_betas": listed})
    assert torch.equal(own.sigma(levels), schedule(LINEAR).sigma(levels))


def test_student_scheduler_walks_the_students_time_steps() -> None:
    clock = schedule(SCALED, skip_prk_steps=True)
    scheduler = clock.deterministic_scheduler()
    scheduler.set_timesteps(timesteps=[999, 600, 399])
    expected = clock.sigma(torch.tensor([1.0, 0.601, 0.4]))
    torch.testing.assert_close(scheduler.sigmas[:-1] / (1 + scheduler.sigmas[:-1]), expected, rtol=1e-6, atol=1e-6)
    assert float(scheduler.sigmas[-1]) == 0.0


def test_student_scheduler_walks_the_uniform_grid_when_the_call_names_none() -> None:
    scheduler = schedule().deterministic_scheduler()
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_grid_between_time_steps_is_refused_for_export() -> None:
    clock = schedule()
    sigmas = clock.sigma(torch.tensor([1.0, 2 / 3])).tolist()
    with pytest.raises(
        ConfigError, match=r"is time step 665\.67 of somebody/model.*multiple of 1/1000.*0\.666 or 0\.667"
    ):
        clock.whole_times(sigmas)


def test_grid_below_the_first_time_step_is_refused_for_export() -> None:
    clock = schedule()
    with pytest.raises(ConfigError, match=r"is time step -0\.50 of somebody/model.*here 0\.001"):
        clock.whole_times(clock.sigma(torch.tensor([1.0, 0.0005])).tolist())


def test_pure_noise_is_no_time_step() -> None:
    with pytest.raises(ConfigError, match="The noise level 1 is time step inf of somebody/model"):
        schedule().whole_times([1.0])


def test_epsilon_prediction_with_zero_terminal_snr_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"somebody/model predicts epsilon on betas without signal.*v-prediction"):
        schedule(SCALED, rescale_betas_zero_snr=True)


def test_v_prediction_with_zero_terminal_snr_has_diffusers_noise_levels() -> None:
    clock = schedule(SCALED, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    scheduler = clock.deterministic_scheduler()
    scheduler.set_timesteps(4)
    ratio = scheduler.sigmas[:-1].double()
    expected = (ratio / (1 + ratio)).float()
    torch.testing.assert_close(clock.sigma(torch.tensor([1.0, 0.75, 0.5, 0.25])), expected, rtol=1e-6, atol=0)
    assert clock.sigma_max < 1.0


def test_flow_matching_scheduler_is_refused() -> None:
    file = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    with pytest.raises(ConfigError, match="scheduler FlowMatchEulerDiscreteScheduler, which has no betas"):
        VPSchedule(file, model="somebody/model")


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction_type": "sample"},
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
    ],
    ids=["sample", "flow", "continuous"],
)
def test_prediction_without_a_known_velocity_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"somebody/model asks for prediction_type='{changes['prediction_type']}'"):
        schedule(LINEAR, **changes)


def test_unknown_betas_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"beta_schedule='squaredcos_cap_v2'; this backbone knows linear"):
        schedule(LINEAR, beta_schedule="squaredcos_cap_v2")
