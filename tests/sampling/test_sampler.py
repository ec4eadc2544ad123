"""The Euler loop against closed forms and against the recorded trajectories of the published code."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.backbones.sd3 import SD3Adapter
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.sampling import noise_batch, noise_for, sample_latents, teacher_sigmas, velocity_field
from fewstep.sampling.sampler import generator_for, step_noise_batch
from tests import golden
from tests.backbones import tiny

MEAN, STD = 0.7, 0.5


def gaussian_velocity(point: NoisyLatent) -> Tensor:
    """The exact velocity of data N(MEAN, STD^2)."""
    s = point.sigma[:, None]
    variance = (1 - s) ** 2 * STD**2 + s**2
    x0 = MEAN + (1 - s) * STD**2 / variance * (point.x_sigma - (1 - s) * MEAN)
    return (point.x_sigma - x0) / s


def test_many_steps_carry_noise_to_gaussian_data() -> None:
    noise = torch.tensor([[-2.0], [0.0], [1.5]])
    drawn = sample_latents(gaussian_velocity, noise, torch.linspace(1, 1 / 4000, 4000))
    # the flow of a Gaussian is affine: n -> mean + std n; Euler's error is of the order of one step
    torch.testing.assert_close(drawn, MEAN + STD * noise, rtol=0, atol=2e-3)


def test_one_step_lands_on_the_data_prediction() -> None:
    noise = torch.tensor([[-2.0], [1.5]])
    drawn = sample_latents(gaussian_velocity, noise, torch.tensor([1.0]))
    torch.testing.assert_close(drawn, torch.full_like(noise, MEAN))


def test_a_sampler_that_re_noises_makes_the_steps_of_the_stock_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with what diffusers computes from the same noise; its own would come from the global generator."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.schedulers import scheduling_flow_match_euler_discrete as stock

    sigmas, noise = torch.tensor([1.0, 0.9, 0.75, 0.5]), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    step_noise = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(1))
    fresh = iter([*step_noise.unbind(1), torch.randn(3, 2)])  # the last is multiplied by 0
    monkeypatch.setattr(stock, "randn_tensor", lambda *shape, **place: next(fresh))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=sigmas.tolist())
    x = noise
    for time in scheduler.timesteps:
        sigma = scheduler.sigmas[scheduler.step_index or 0].expand(3)
        x = scheduler.step(gaussian_velocity(NoisyLatent(x, sigma)), time, x).prev_sample
    drawn = sample_latents(gaussian_velocity, noise, sigmas, step_noise=step_noise)
    torch.testing.assert_close(drawn, x, rtol=1e-6, atol=1e-6)


def test_steps_re_noise_with_what_the_pictures_own_generator_draws_next() -> None:
    one = step_noise_batch(["a cat"], [3], (2, 3), steps=4)
    both = step_noise_batch(["a dog", "a cat"], [0, 3], (2, 3), steps=4)
    assert one.shape == (1, 3, 2, 3)
    assert torch.equal(one[0], both[1]) and not torch.equal(both[0], both[1])
    generator = generator_for("a cat", 3)
    drawn = [torch.randn(2, 3, generator=generator) for _ in range(4)]
    assert torch.equal(drawn[0], noise_for("a cat", 3, (2, 3)))
    assert torch.equal(torch.stack(drawn[1:]), one[0])


def test_initial_scale_multiplies_the_noise() -> None:
    noise = torch.tensor([[2.0], [-1.0]])
    drawn = sample_latents(lambda point: torch.zeros_like(point.x_sigma), noise, torch.tensor([0.9]), initial_scale=0.5)
    torch.testing.assert_close(drawn, 0.5 * noise)


def test_sampler_keeps_no_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    drawn = sample_latents(lambda point: weight * point.x_sigma, torch.ones(1, 1), torch.tensor([1.0, 0.5]))
    assert not drawn.requires_grad


class Recorded:
    """The network and the adapter that the recorded trajectories were made with."""

    def __init__(self) -> None:
        from diffusers import SD3Transformer2DModel

        weights = golden.FOLDER / "weights"
        network_config = json.loads((weights / "transformer_config.json").read_text())
        self.network: nn.Module = SD3Transformer2DModel.from_config(network_config).eval()
        self.network.load_state_dict(load_file(weights / "real_teacher.safetensors"))
        components = {
            "model_index": {"_class_name": "StableDiffusion3Pipeline"},
            "scheduler": json.loads((weights / "scheduler_config.json").read_text()),
            "vae": {
                "_class_name": "AutoencoderKL",
                "block_out_channels": [8, 8],
                "scaling_factor": 1.0,
                "shift_factor": 0.0,
            },
            "transformer": network_config,
        }
        whole = tiny.whole(components, "SD3Transformer2DModel")
        self.adapter = SD3Adapter(SD3Adapter.config_class(model="recorded", height=16, width=16), whole)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


def as_tensors(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in golden.arrays(name).items()}


def recorded_conditioning(arrays: dict[str, Tensor]) -> Conditioning:
    return Conditioning({"prompt_embeds": arrays["prompt_embeds"], "pooled_prompt_embeds": arrays["pooled"]})


@pytest.mark.parametrize("name", ["pipeline_ode4", "pipeline_ode_random6"])
def test_sampler_reproduces_the_recorded_trajectory(name: str, recorded: Recorded) -> None:
    arrays = as_tensors(name)
    field = velocity_field(recorded.adapter, recorded.network, recorded_conditioning(arrays))
    visited: list[Tensor] = []

    def watched(point: NoisyLatent) -> Tensor:
        visited.append(point.x_sigma)
        return field(point)

    final = sample_latents(watched, arrays["x_T"], arrays["sched_sigmas"][:-1])
    torch.testing.assert_close(torch.stack([*visited, final]), arrays["all_xt"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pipeline_ode4", "pipeline_ode_random6"])
def test_velocities_are_the_recorded_ones(name: str, recorded: Recorded) -> None:
    arrays = as_tensors(name)
    cond = recorded_conditioning(arrays)
    for step, velocity in enumerate(arrays["all_v"]):
        point = NoisyLatent(arrays["all_xt"][step], arrays["sched_sigmas"][step].expand(len(velocity)))
        with torch.no_grad():
            ours = recorded.adapter.velocity(recorded.network, point, cond)
        torch.testing.assert_close(ours, velocity, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pipeline_ode4", "pipeline_ode_random6"])
def test_levels_become_the_recorded_sigmas(name: str, recorded: Recorded) -> None:
    arrays = as_tensors(name)
    ours = recorded.adapter.to_sigma(arrays["raw_sigmas"].float())
    torch.testing.assert_close(ours, arrays["sched_sigmas"][:-1].float(), rtol=1e-6, atol=1e-7)


def test_teacher_grid_of_sd3_in_four_steps(recorded: Recorded) -> None:
    torch.testing.assert_close(teacher_sigmas(recorded.adapter, 4), torch.tensor([1.0, 0.9, 0.75, 0.5]))


def test_zero_steps_are_refused(recorded: Recorded) -> None:
    with pytest.raises(ConfigError, match="steps is 0; it must be a whole number from 1 to 1000"):
        teacher_sigmas(recorded.adapter, 0)


def test_guidance_without_the_unconditional_branch_is_refused(recorded: Recorded) -> None:
    cond = recorded_conditioning(as_tensors("pipeline_ode4"))
    with pytest.raises(ValueError, match=r"guidance_scale 2\.0 needs null_cond"):
        velocity_field(recorded.adapter, recorded.network, cond, guidance_scale=2.0)


SHAPE = (4, 8, 8)


def test_noise_of_a_picture_does_not_depend_on_its_neighbours() -> None:
    batch = noise_batch(["a", "b", "c"], [1, 2, 3], SHAPE)
    assert torch.equal(batch[1], noise_for("b", 2, SHAPE))


def test_noise_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = noise_for("a", 7, SHAPE)
    torch.manual_seed(2)
    assert torch.equal(first, noise_for("a", 7, SHAPE))


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    noise_for("a", 7, SHAPE)
    assert torch.equal(torch.rand(1), expected)


def test_another_seed_gives_other_noise() -> None:
    assert not torch.equal(noise_for("a", 7, SHAPE), noise_for("a", 8, SHAPE))


def test_another_prompt_gives_other_noise() -> None:
    assert not torch.equal(noise_for("a", 7, SHAPE), noise_for("b", 7, SHAPE))


def test_seed_and_prompt_are_not_confused() -> None:
    assert not torch.equal(noise_for("2", 1, SHAPE), noise_for("", 12, SHAPE))


def test_noise_of_a_name_never_changes() -> None:
    """Pictures of published seeds stay what they are."""
    expected = torch.tensor([-0.3300083, 0.2649843])
    torch.testing.assert_close(noise_for("a red handwritten three", 7, (2,)), expected, rtol=0, atol=1e-6)


def test_negative_and_huge_seeds_are_seeds() -> None:
    assert not torch.equal(noise_for("a", -1, SHAPE), noise_for("a", 2**70, SHAPE))


def test_noise_is_standard_normal() -> None:
    noise = noise_for("a", 0, (100_000,))
    # five standard errors
    assert abs(float(noise.mean())) < 5 / 100_000**0.5
    assert abs(float(noise.std()) - 1) < 5 / 200_000**0.5
