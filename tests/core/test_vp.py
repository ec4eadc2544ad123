"""Variance-preserving networks in flow coordinates: against Gaussian data, whose answers are known exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewstep.core import flow, vp
from fewstep.core.points import NoisyLatent
from tests.oracles import Gaussian

DATA = Gaussian(mean=0.7, std=0.4)
# linear betas end at a = .00636, scaled-linear ones at .068
SIGNALS = [0.9999, 0.9, 0.5, 0.068, 0.00636]
signals = st.floats(0.005, 0.9999)


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)


def level(signal: float) -> Tensor:
    """The flow noise level of a signal factor, for a batch of two."""
    return vp.sigma_from_signal(torch.tensor([signal, signal], dtype=torch.float64)).float()


def expected_epsilon(x_t: Tensor, signal: float) -> Tensor:
    """E[noise | x_t] for the Gaussian data, in variance-preserving coordinates, float64."""
    noise = (1 - signal**2) ** 0.5
    variance = signal**2 * DATA.std**2 + noise**2
    return noise / variance * (x_t.double() - signal * DATA.mean)


def expected_v_prediction(x_t: Tensor, signal: float) -> Tensor:
    """E[a noise - b x0 | x_t] for the Gaussian data, float64."""
    noise = (1 - signal**2) ** 0.5
    epsilon = expected_epsilon(x_t, signal)
    return signal * epsilon - noise * (x_t.double() - noise * epsilon) / signal


@given(signals)
def test_the_two_states_hold_the_same_data_and_noise(signal: float) -> None:
    x0, noise = pair()
    x_t = signal * x0 + (1 - signal**2) ** 0.5 * noise
    sigma = level(signal)
    torch.testing.assert_close(vp.to_vp(flow.interpolate(x0, noise, sigma), sigma), x_t, rtol=1e-5, atol=1e-5)


def test_published_noise_levels_of_linear_and_scaled_linear_betas() -> None:
    linear = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0)
    scaled = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0)
    times = torch.tensor([999, 749, 499, 249])
    pixart, sd = vp.sigma_from_signal(linear[times].sqrt()), vp.sigma_from_signal(scaled[times].sqrt())
    torch.testing.assert_close(pixart, torch.tensor([0.99369, 0.94520, 0.77397, 0.48795]), rtol=0, atol=1e-5)
    torch.testing.assert_close(sd, torch.tensor([0.93596, 0.80322, 0.61728, 0.40940]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("signal", SIGNALS)
def test_an_exact_epsilon_becomes_the_exact_velocity(signal: float) -> None:
    sigma = level(signal)
    point = NoisyLatent(flow.interpolate(*pair(), sigma), sigma)
    epsilon = expected_epsilon(vp.to_vp(point.x_sigma, sigma), signal).float()
    velocity = vp.velocity_from_epsilon(point.x_sigma, epsilon, sigma)
    # the float32 rounding of epsilon and x, enlarged by 1 / (1 - sigma)
    torch.testing.assert_close(velocity, DATA.velocity(point), rtol=1e-5, atol=1e-6 / float(1 - sigma[0]))


@pytest.mark.parametrize("signal", SIGNALS)
def test_an_exact_v_prediction_becomes_the_exact_velocity(signal: float) -> None:
    sigma = level(signal)
    point = NoisyLatent(flow.interpolate(*pair(), sigma), sigma)
    prediction = expected_v_prediction(vp.to_vp(point.x_sigma, sigma), signal).float()
    velocity = vp.velocity_from_v_prediction(point.x_sigma, prediction, sigma)
    torch.testing.assert_close(velocity, DATA.velocity(point), rtol=1e-4, atol=1e-5)


def test_a_v_prediction_has_a_velocity_in_pure_noise() -> None:
    noise, x0 = pair()
    at_one = torch.ones(2)
    # at a = 0 the v-prediction of a network that expects x0 is -x0
    torch.testing.assert_close(vp.velocity_from_v_prediction(noise, -x0, at_one), noise - x0, rtol=1e-6, atol=1e-6)


@given(signals, signals)
def test_a_ddim_step_is_an_euler_step(signal: float, next_signal: float) -> None:
    x_t, epsilon = pair(1)
    noise, next_noise = (1 - signal**2) ** 0.5, (1 - next_signal**2) ** 0.5
    x0 = (x_t.double() - noise * epsilon.double()) / signal
    ddim = next_signal * x0 + next_noise * epsilon.double()

    sigma, sigma_next = level(signal), level(next_signal)
    x_sigma = x_t / vp.state_scale(sigma)[:, None, None]
    velocity = vp.velocity_from_epsilon(x_sigma, epsilon, sigma)
    euler = flow.euler_step(x_sigma, velocity, sigma=sigma, sigma_next=sigma_next)
    largest = float(ddim.abs().max())
    # float32 knows 1 - sigma to 6e-8 absolutely: five digits at a = .005
    torch.testing.assert_close(vp.to_vp(euler, sigma_next).double(), ddim, rtol=0, atol=3e-5 * largest)


@given(signals, st.floats(0.0, 10.0))
def test_guidance_on_epsilon_is_guidance_on_the_velocity(signal: float, guidance_scale: float) -> None:
    x_sigma, cond = pair(2)
    null = 0.5 * pair(3)[0]
    sigma = level(signal)
    on_epsilon = vp.velocity_from_epsilon(x_sigma, flow.guide(cond, null, guidance_scale), sigma)
    on_velocity = flow.guide(
        vp.velocity_from_epsilon(x_sigma, cond, sigma), vp.velocity_from_epsilon(x_sigma, null, sigma), guidance_scale
    )
    largest = float(on_epsilon.abs().max())
    torch.testing.assert_close(on_velocity, on_epsilon, rtol=0, atol=1e-5 * max(largest, 1.0) * (1 + guidance_scale))


def test_a_bfloat16_network_is_converted_in_float32() -> None:
    x_sigma, epsilon = pair()
    sigma = level(0.00636)
    velocity = vp.velocity_from_epsilon(x_sigma, epsilon.bfloat16(), sigma)
    assert velocity.dtype == torch.float32
    exact = (epsilon.bfloat16().double() - x_sigma.double()) / (1 - sigma.double())[:, None, None]
    torch.testing.assert_close(velocity.double(), exact, rtol=1e-6, atol=1e-4)
