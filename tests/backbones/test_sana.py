"""What is particular to SANA."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.configurations import complete
from fewstep.backbones.prompt_lengths import warn_of_cut_prompts
from fewstep.backbones.sana import SanaAdapter
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.sampling import sample_latents
from tests.backbones import tiny_sana

DPM = {"_class_name": "DPMSolverMultistepScheduler", **tiny_sana.STOCK_SCHEDULER}
LEVELS = [1.0, 0.75, 0.5, 0.25]


def adapter_of(scheduler: dict[str, Any] = DPM, network: dict[str, Any] | None = None, **config: Any) -> SanaAdapter:
    components = tiny_sana.components(**tiny_sana.SANA_600M, **(network or {}))
    return SanaAdapter(
        SanaAdapter.config_class(model="sana", **config),
        {**components, "scheduler": complete(scheduler, place="a file")},
    )


class Recorder(nn.Module):
    """Answers twice as many channels as it is asked, counting up, and remembers what it was asked."""

    def forward(self, **arguments: Any) -> tuple[Tensor]:
        self.arguments = arguments
        x = arguments["hidden_states"]
        return (torch.arange(2.0 * x.shape[1]).view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:]),)


def ask(adapter: SanaAdapter) -> tuple[dict[str, Any], Tensor]:
    network = Recorder()
    cond = Conditioning({"prompt_embeds": torch.zeros(1, 3, 4), "prompt_attention_mask": torch.tensor([[1, 1, 0]])})
    velocity = adapter.velocity(network, NoisyLatent(torch.zeros(1, 32, 2, 2), torch.tensor([0.999])), cond)
    return network.arguments, velocity


def test_four_steps_of_sana() -> None:
    torch.testing.assert_close(adapter_of().to_sigma(torch.tensor(LEVELS)), torch.tensor([1.0, 0.9, 0.75, 0.5]))


def test_shift_of_the_4k_models() -> None:
    four_k = adapter_of({**DPM, "flow_shift": 6.0})
    torch.testing.assert_close(four_k.to_sigma(torch.tensor(0.5)), torch.tensor(6 / 7))


def test_clock_is_the_one_of_the_stock_scheduler() -> None:
    scheduler = tiny_sana.sana_pipeline().scheduler
    scheduler.set_timesteps(4)
    # its grid starts at 1 - 1/1000 before the shift and its times are whole numbers
    torch.testing.assert_close(scheduler.sigmas[:4], adapter_of().to_sigma(torch.tensor(LEVELS)), rtol=0, atol=5e-4)


def test_first_order_stock_sampler_draws_what_ours_draws_on_its_grid(tmp_path: Any) -> None:
    """DPM++ of order one is Euler, but for its times, which it truncates to whole numbers."""
    pipeline = tiny_sana.sana_pipeline()
    pipeline.save_pretrained(tmp_path)
    adapter = create_model_adapter(tmp_path, SanaAdapter.config_class(model=str(tmp_path), height=32, width=32))
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, solver_order=1)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    stock = pipeline(
        ["a cat"],
        latents=noise,
        num_inference_steps=4,
        guidance_scale=1.0,
        height=32,
        width=32,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    cond, network = adapter.encode(pipeline, ["a cat"]), adapter.load_network()

    def with_whole_times(point: NoisyLatent) -> Tensor:
        return adapter.velocity(network, NoisyLatent(point.x_sigma, (1000 * point.sigma).floor() / 1000), cond)

    ours = sample_latents(with_whole_times, noise, pipeline.scheduler.sigmas[:4])
    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-4)


def test_time_stays_float32_and_masks_stay_whole_under_bfloat16() -> None:
    adapter = adapter_of()
    adapter.compute_dtype = torch.bfloat16
    asked, velocity = ask(adapter)
    assert torch.equal(asked["timestep"], 1000 * torch.tensor([0.999]))
    assert asked["hidden_states"].dtype == asked["encoder_hidden_states"].dtype == torch.bfloat16
    assert asked["encoder_attention_mask"].tolist() == [[1, 1, 0]]
    assert velocity.dtype == torch.float32


def test_time_is_scaled_as_the_checkpoint_says() -> None:
    asked, _ = ask(adapter_of(network={"timestep_scale": 0.001}))
    torch.testing.assert_close(asked["timestep"], torch.tensor([0.999]))


def test_learned_variance_is_dropped() -> None:
    _, velocity = ask(adapter_of())
    assert velocity[0, :, 0, 0].tolist() == list(range(32))


def test_instruction_stands_before_prompts_and_never_before_the_null_prompt(tmp_path: Any) -> None:
    pipeline = tiny_sana.sana_pipeline()
    pipeline.save_pretrained(tmp_path)
    place = {"model": str(tmp_path), "height": 32, "width": 32, "max_sequence_length": 24}
    told = create_model_adapter(tmp_path, SanaAdapter.config_class(**place))
    bare = create_model_adapter(tmp_path, SanaAdapter.config_class(**place, instruction=False))
    embeds = [adapter.encode(pipeline, ["a cat"]).tensors["prompt_embeds"] for adapter in (told, bare)]
    nulls = [adapter.encode_null(pipeline).tensors["prompt_embeds"] for adapter in (told, bare)]
    assert (embeds[0] - embeds[1]).abs().max() > 1e-3
    assert torch.equal(nulls[0], nulls[1])


def test_prompts_that_sana_cuts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="fewstep"):
        warn_of_cut_prompts(adapter_of(max_sequence_length=24), tiny_sana.sana_pipeline(), ["a cat", "a cat" * 5])
    said = [record.getMessage().partition(" (")[0] for record in caplog.records]
    assert said == ["1 of 2 prompts is longer than 23 tokens and is cut"]


def test_stock_call_leaves_the_instruction_out_when_the_recipe_does() -> None:
    assert "complex_human_instruction" not in adapter_of().call_kwargs([1.0])
    assert adapter_of(instruction=False).call_kwargs([1.0])["complex_human_instruction"] is None


def test_stock_call_draws_the_size_it_is_asked_for() -> None:
    call = adapter_of(height=512, width=1024).call_kwargs([1.0])
    assert (call["use_resolution_binning"], call["height"], call["width"]) == (False, 512, 1024)


def test_instruction_leaves_a_prompt_one_token_less() -> None:
    pipeline = tiny_sana.sana_pipeline()
    assert adapter_of().token_limits(pipeline) == [299]
    assert adapter_of(instruction=False).token_limits(pipeline) == [300]


@pytest.mark.parametrize("scheduler", [DPM, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}])
def test_student_scheduler_takes_sigmas_as_they_are(scheduler: dict[str, Any]) -> None:
    shipped = adapter_of(scheduler).student_scheduler([1.0])
    shipped.set_timesteps(sigmas=[1.0, 0.9, 0.7, 0.4])
    torch.testing.assert_close(shipped.sigmas, torch.tensor([1.0, 0.9, 0.7, 0.4, 0.0]), rtol=0, atol=0)


def test_latent_is_32_times_smaller() -> None:
    assert adapter_of().latent_shape(1024, 512) == (32, 32, 16)


def test_size_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1000 x 1024 pixels do not fit sana.*multiples of 32.*992 x 1024"):
        adapter_of(height=1000)


@pytest.mark.parametrize(
    "scheduler",
    [
        {**DPM, "use_flow_sigmas": False},
        {**DPM, "prediction_type": "epsilon"},
        {"_class_name": "SCMScheduler"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
    ],
)
def test_scheduler_with_another_clock_is_refused(scheduler: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"scheduler of sana is a \w+ whose clock this backbone does not know"):
        adapter_of(scheduler)


def test_network_of_sprint_is_refused_even_under_another_name() -> None:
    with pytest.raises(ConfigError, match=r"sana takes its guidance as an input .* SANA-Sprint .* already distilled"):
        adapter_of(network={"guidance_embeds": True}, allow_distilled=True)
