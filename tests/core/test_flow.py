import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.core import flow
from fewstep.core.points import NoisyLatent
from tests.oracles import Gaussian, Mixture

SIGMAS = st.floats(min_value=0.01, max_value=0.99)


def pair(shape: tuple[int, ...] = (3, 2, 4, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@given(SIGMAS)
def test_data_and_noise_are_recovered_from_the_velocity_at_every_sigma(level: float) -> None:
    x0, noise = pair()
    sigma = torch.full((3,), level)
    x_sigma = flow.interpolate(x0, noise, sigma)
    velocity = flow.velocity_from(x0, noise)
    recovered = flow.x0_from(x_sigma, velocity, sigma)
    torch.testing.assert_close(recovered, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(recovered + velocity, noise, atol=1e-5, rtol=1e-5)


def test_one_euler_step_of_the_mean_velocity_ends_where_many_ended() -> None:
    data, sigmas = Gaussian(mean=0.7, std=0.4), torch.linspace(1.0, 0.3, 8)
    start = x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for sigma, after in itertools.pairwise(sigmas.expand(5, -1).unbind(1)):
        x = flow.euler_step(x, data.velocity(NoisyLatent(x, sigma)), sigma=sigma, sigma_next=after)
    ends = {"sigma": torch.ones(5), "sigma_next": torch.full((5,), 0.3)}
    torch.testing.assert_close(flow.euler_step(start, flow.mean_velocity(start, x, **ends), **ends), x)


@given(SIGMAS, SIGMAS)
def test_an_euler_step_is_a_ddim_step(level: float, level_next: float) -> None:
    x_sigma, velocity = pair()
    sigma, sigma_next = torch.full((3,), level), torch.full((3,), level_next)
    stepped = flow.euler_step(x_sigma, velocity, sigma=sigma, sigma_next=sigma_next)
    x0 = flow.x0_from(x_sigma, velocity, sigma)
    noise = x0 + velocity
    torch.testing.assert_close(stepped, flow.interpolate(x0, noise, sigma_next), atol=1e-5, rtol=1e-5)


def test_sigma_is_broadcast_over_samples_even_when_the_width_equals_the_batch() -> None:
    x0, noise = torch.zeros(2, 2, 2), torch.ones(2, 2, 2)
    mixed = flow.interpolate(x0, noise, torch.tensor([0.0, 1.0]))
    assert mixed[0].eq(0).all() and mixed[1].eq(1).all()


def test_conversions_compute_in_float32_for_bfloat16_networks() -> None:
    x_sigma, velocity = pair()
    sigma = torch.tensor([0.999, 0.5, 0.1])
    exact = flow.x0_from(x_sigma.bfloat16(), velocity.bfloat16(), sigma)
    assert exact.dtype == torch.float32
    rounded_inputs = x_sigma.bfloat16().float() - sigma[:, None, None, None] * velocity.bfloat16().float()
    assert torch.equal(exact, rounded_inputs)


@pytest.mark.parametrize(
    ("shift", "expected"), [(3.0, [1.0, 0.9, 0.75, 0.5]), (2.718281828**1.15, [1.0, 0.9045, 0.7595, 0.5128])]
)
def test_the_uniform_grid_shifted_gives_the_published_schedules(shift: float, expected: list[float]) -> None:
    shifted = flow.time_shift(torch.tensor([1.0, 0.75, 0.5, 0.25]), shift)
    torch.testing.assert_close(shifted, torch.tensor(expected), atol=5e-5, rtol=0)


def test_stretched_grid_ends_at_the_terminal_level() -> None:
    sigmas = torch.tensor([1.0, 0.7, 0.4])
    stretched = flow.stretch_to_terminal(sigmas, 0.1)
    # distances from noise grow by one factor, (1 - .1) / (1 - .4)
    torch.testing.assert_close(stretched, torch.tensor([1.0, 1 - 0.3 * 1.5, 0.1]))


def test_guidance_one_is_the_conditional_velocity() -> None:
    cond, null = pair()
    torch.testing.assert_close(flow.guide(cond, null, 1.0), cond)


def test_following_the_exact_velocity_of_a_gaussian_reaches_its_flow_map() -> None:
    data = Gaussian(mean=0.7, std=0.4)
    noise = pair()[0]
    x, levels = noise, torch.linspace(1, 0, 2001)
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        velocity = data.velocity(NoisyLatent(x, sigma.expand(3)))
        x = flow.euler_step(x, velocity, sigma=sigma.expand(3), sigma_next=sigma_next.expand(3))
    torch.testing.assert_close(x, data.flow(noise), atol=3e-3, rtol=0)  # first-order solver, 2,000 steps


def test_following_the_exact_velocity_of_a_mixture_reaches_its_modes() -> None:
    means = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    data = Mixture(means, std=0.1)
    x, levels = torch.randn(400, 2, generator=torch.Generator().manual_seed(1)), torch.linspace(1, 0.002, 300)
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        velocity = data.velocity(NoisyLatent(x, sigma.expand(400)))
        x = flow.euler_step(x, velocity, sigma=sigma.expand(400), sigma_next=sigma_next.expand(400))
    distance = (x[:, None] - means).norm(dim=-1).min(1).values
    assert (distance < 0.4).float().mean() > 0.99  # four standard deviations
    assert 0.4 < (x[:, 0] > 0).float().mean() < 0.6
