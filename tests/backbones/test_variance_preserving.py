"""What is particular to PixArt-Sigma, Stable Diffusion 1 and 2, and SDXL."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from fewstep.backbones.pixart import PixArtAdapter
from fewstep.backbones.sd15 import SD15Adapter
from fewstep.backbones.sdxl import SDXLAdapter
from fewstep.config.recipe import load_recipe
from fewstep.core import flow, vp
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.data.embeddings import open_or_build
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.testing.case import LEVELS, PROMPTS, Case, open_case
from fewstep.training.noise_levels import require_fitting_levels
from fewstep.training.trainer import build_method
from tests.backbones import tiny_vp
from tests.backbones.families import FAMILIES

RECIPES = ["pixart-sigma", "sd15", "sdxl"]
COMPONENTS = {
    "pixart-sigma": tiny_vp.pixart_components(),
    "sd15": tiny_vp.sd_components(),
    "sdxl": tiny_vp.sdxl_components(),
}


def of_recipe(name: str) -> ModelAdapter:
    config = load_recipe(name).config.backbone
    return adapter_class(config.kind)(config, COMPONENTS[name])


def pixart(**config: Any) -> PixArtAdapter:
    return PixArtAdapter(PixArtAdapter.config_class(model="pixart", **config), tiny_vp.pixart_components())


class Recorder(nn.Module):
    """Answers with a constant and remembers what it was asked."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x_t: Tensor, *positional: Tensor, **named: Any) -> tuple[Tensor]:
        self.x_t, self.positional, self.named = x_t, positional, named
        answer = torch.arange(self.channels, dtype=x_t.dtype)[None, :, None, None]
        return (answer.expand(len(x_t), -1, *x_t.shape[2:]),)


def point(sigma: float = 0.5, channels: int = 4) -> NoisyLatent:
    latents = torch.randn(2, channels, 2, 3, generator=torch.Generator().manual_seed(1))
    return NoisyLatent(latents, torch.full((2,), sigma))


def text(width: int = 4) -> Conditioning:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    embeds = torch.zeros(2, 3, width)
    pooled = torch.zeros(2, width)
    return Conditioning({"prompt_embeds": embeds, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled})


# Against DDIM, which shares no code with the first-order DPM++ of the conformance suite.


@pytest.fixture(scope="module", params=["pixart", "sd15", "sd21", "sdxl"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("pipeline") / "teacher"
    family.build().save_pretrained(folder)
    return open_case(family, folder, family.size)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_four_uniform_steps_are_ddim_with_trailing_time_steps(case: Case, guidance_scale: float) -> None:
    stock = case.pipeline.scheduler.config
    ddim = DDIMScheduler(
        beta_start=stock.beta_start,
        beta_end=stock.beta_end,
        beta_schedule=stock.beta_schedule,
        prediction_type=stock.prediction_type,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    pipeline = type(case.pipeline)(**{**case.pipeline.components, "scheduler": ddim}, **without_checker(case))
    call = {**case.adapter.call_kwargs(case.adapter.sigmas(torch.tensor(LEVELS)).tolist()), **case.family.call}
    del call["timesteps"]
    call["guidance_scale"] = guidance_scale
    theirs = pipeline(list(PROMPTS), latents=case.noise(), output_type="latent", **call).images
    ours = case.ours(guidance_scale=guidance_scale)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2 * case.family.tolerance)


def without_checker(case: Case) -> dict[str, Any]:
    return {"requires_safety_checker": False} if case.family.kind == "sd15" else {}


def test_guidance_on_epsilon_is_guidance_on_the_velocity(case: Case) -> None:
    cond, null = case.conditioning()
    null = null.expand(2)
    at = NoisyLatent(case.noise(), case.adapter.to_sigma(torch.tensor([0.75, 0.5])))
    velocity = case.adapter.guided_velocity(case.network, at, cond, null, guidance_scale=4.5)

    adapter: Any = case.adapter
    x_t, time = vp.to_vp(at.x_sigma, at.sigma), adapter.schedule.time(at.sigma)
    branches = [adapter.predict(case.network, x_t, time, prompts) for prompts in (cond, null)]
    guided = flow.guide(branches[0], branches[1], 4.5)
    v_prediction = adapter.schedule.prediction == "v_prediction"
    convert = vp.velocity_from_v_prediction if v_prediction else vp.velocity_from_epsilon
    torch.testing.assert_close(velocity, convert(at.x_sigma, guided, at.sigma), rtol=1e-4, atol=1e-4)


# The clock.


@pytest.mark.parametrize("name", RECIPES)
def test_laws_of_the_recipe_never_exceed_the_largest_noise_level(name: str) -> None:
    config, adapter = load_recipe(name).config, of_recipe(name)
    method = build_method(config, adapter)
    assert adapter.sigma_max < 1.0
    assert method.sigma_range.high == min(config.sigma_range.high, adapter.sigma_max)
    first = method.schedule.sigmas(torch.full((2, 3), 0.999), method.to_sigma)[:, 0]
    assert first.tolist() == [adapter.sigma_max] * 2


def test_drawing_starts_at_standard_normal_noise() -> None:
    for name, expected in (("pixart-sigma", 0.99371), ("sd15", 0.93815)):
        adapter = of_recipe(name)
        assert adapter.initial_scale == pytest.approx(expected, abs=1e-5)
        state = vp.to_vp(torch.full((1, 1), adapter.initial_scale), torch.tensor([adapter.sigma_max]))
        torch.testing.assert_close(state, torch.ones(1, 1), rtol=1e-6, atol=1e-6)


def test_time_and_conversion_stay_float32_under_bfloat16() -> None:
    adapter, network = of_recipe("sd15"), Recorder(4)
    adapter.compute_dtype = torch.bfloat16
    at = NoisyLatent(point().x_sigma, adapter.to_sigma(torch.tensor([1.0, 0.75])))
    velocity = adapter.velocity(network, at, text())
    assert torch.equal(network.positional[0], torch.tensor([999.0, 749.0]))
    assert network.x_t.dtype == network.named["encoder_hidden_states"].dtype == torch.bfloat16
    epsilon = torch.arange(4.0)[None, :, None, None].expand(2, 4, 2, 3)
    torch.testing.assert_close(velocity, vp.velocity_from_epsilon(at.x_sigma, epsilon, at.sigma), rtol=0, atol=0)


def test_stable_diffusion_2_is_read_as_its_scheduler_says() -> None:
    file = tiny_vp.sd_components(tiny_vp.SD21_UNET, prediction_type="v_prediction")
    adapter = SD15Adapter(SD15Adapter.config_class(model="sd21", height=768, width=768), file)
    at, network = point(0.9), Recorder(4)
    velocity = adapter.velocity(network, at, text())
    answer = network(at.x_sigma)[0]
    assert torch.equal(velocity, vp.velocity_from_v_prediction(at.x_sigma, answer, at.sigma))


# PixArt-Sigma.


def test_learned_variance_is_dropped() -> None:
    adapter, at = pixart(), point()
    velocity = adapter.velocity(Recorder(8), at, text())
    epsilon = torch.arange(4.0)[None, :, None, None].expand_as(at.x_sigma)
    assert torch.equal(velocity, vp.velocity_from_epsilon(at.x_sigma, epsilon, at.sigma))


def test_padding_of_a_pixart_prompt_is_masked(tmp_path: Path) -> None:
    tiny_vp.pixart_pipeline().save_pretrained(tmp_path / "teacher")
    config = PixArtAdapter.config_class(model=str(tmp_path / "teacher"), height=16, width=16, max_sequence_length=24)
    adapter = create_model_adapter(tmp_path / "teacher", config)
    cond = adapter.encode(adapter.load_pipeline(), PROMPTS)
    mask = cond.tensors["prompt_attention_mask"]
    other = cond.tensors["prompt_embeds"] + 3.0 * (1 - mask)[..., None]  # changes padding only
    network, at = adapter.load_network(), NoisyLatent(torch.randn(2, 4, 8, 8), torch.tensor([0.9, 0.5]))
    with torch.no_grad():
        velocity = adapter.velocity(network, at, cond)
        changed = adapter.velocity(network, at, Conditioning({**cond.tensors, "prompt_embeds": other}))
    assert not mask.all()
    torch.testing.assert_close(changed, velocity, rtol=0, atol=0)


def test_prompts_that_pixart_cuts_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_vp.pixart_pipeline().save_pretrained(tmp_path / "teacher")
    config = PixArtAdapter.config_class(model=str(tmp_path / "teacher"), height=16, width=16, max_sequence_length=12)
    adapter = create_model_adapter(tmp_path / "teacher", config)
    open_or_build(tmp_path / "cache", adapter, PROMPTS)
    assert "1 of 2 prompts is longer than 12 tokens and is cut (T5Tokenizer" in caplog.text


def test_captions_are_never_cleaned() -> None:
    adapter = pixart()
    assert adapter.call_kwargs([adapter.sigma_max])["clean_caption"] is False


def test_checkpoint_that_names_the_old_transformer_class_is_exported_with_the_new_one(tmp_path: Path) -> None:
    """Released PixArt files were written before the transformer had a class of its own."""
    tiny_vp.pixart_pipeline().save_pretrained(tmp_path / "teacher")
    index, config = tmp_path / "teacher" / "model_index.json", tmp_path / "teacher" / "transformer" / "config.json"
    for file in (index, config):
        file.write_text(file.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    adapter = create_model_adapter(tmp_path / "teacher", PixArtAdapter.config_class(model="m", height=16, width=16))
    network = adapter.load_network()
    export_student(adapter, network, tmp_path / "student", levels=LEVELS)
    exported = json.loads((tmp_path / "student" / "model_index.json").read_text())
    assert exported["transformer"] == ["diffusers", "PixArtTransformer2DModel"]
    stock = DiffusionPipeline.from_pretrained(tmp_path / "student").transformer
    assert all(torch.equal(value, stock.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("asked", [None, True])
def test_transformer_that_expects_a_size_is_refused(asked: bool | None) -> None:
    file = tiny_vp.pixart_components(use_additional_conditions=asked)
    with pytest.raises(ConfigError, match=f"has use_additional_conditions={asked} with sample_size=128, so it expects"):
        PixArtAdapter(PixArtAdapter.config_class(model="pixart"), file)


def test_transformer_of_another_size_needs_no_such_line() -> None:
    file = tiny_vp.pixart_components(use_additional_conditions=None, sample_size=64)
    assert PixArtAdapter(PixArtAdapter.config_class(model="pixart", height=512, width=512), file).sigma_max < 1


# SDXL.


def sdxl(**config: Any) -> SDXLAdapter:
    return SDXLAdapter(SDXLAdapter.config_class(model="sdxl", **config), tiny_vp.sdxl_components())


def test_sdxl_is_told_the_size_of_the_picture() -> None:
    network = Recorder(4)
    large = NoisyLatent(torch.zeros(2, 4, 96, 168), torch.full((2,), 0.5))
    sdxl().velocity(network, large, text())
    assert network.named["added_cond_kwargs"]["time_ids"].tolist() == [[768.0, 1344.0, 0.0, 0.0, 768.0, 1344.0]] * 2


@pytest.mark.parametrize("zeros", [True, False])
def test_unconditional_branch_of_sdxl_is_zero_where_the_checkpoint_says_so(tmp_path: Path, zeros: bool) -> None:
    tiny_vp.sdxl_pipeline(force_zeros_for_empty_prompt=zeros).save_pretrained(tmp_path / "teacher")
    adapter = create_model_adapter(tmp_path / "teacher")
    null = adapter.encode_null(adapter.load_pipeline())
    assert [bool(value.any()) for value in null.tensors.values()] == [not zeros] * 2


def test_sdxl_with_normalised_latents_is_refused() -> None:
    file = tiny_vp.sdxl_components()
    file["vae"] = {**file["vae"], "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    with pytest.raises(ConfigError, match="VAE of sdxl normalises latents by latents_mean, as retrainings of SDXL"):
        SDXLAdapter(SDXLAdapter.config_class(model="sdxl"), file)


# Sizes, grids and files.


def test_sizes_of_the_released_checkpoints() -> None:
    assert of_recipe("pixart-sigma").latent_shape(1024, 768) == (4, 128, 96)
    assert of_recipe("sd15").latent_shape(512, 520) == (4, 64, 65)


def test_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1000 x 1024 pixels do not fit pixart.*multiples of 16.*992 x 1024"):
        pixart(height=1000)


def test_safety_checker_stays_out_of_memory(tmp_path: Path) -> None:
    tiny_vp.sd_pipeline().save_pretrained(tmp_path / "teacher")
    assert create_model_adapter(tmp_path / "teacher").load_pipeline().safety_checker is None


def test_flow_retraining_is_refused(tmp_path: Path) -> None:
    file = tiny_vp.pixart_components()
    file["scheduler"] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    with pytest.raises(
        ConfigError, match="pixart ships with the scheduler FlowMatchEulerDiscreteScheduler, which has no"
    ):
        PixArtAdapter(PixArtAdapter.config_class(model="pixart"), file)


def test_grid_that_could_not_be_exported_is_refused_before_training() -> None:
    config = load_recipe("sd15", ["sampling.levels=[1.0, 0.3335]"]).config
    with pytest.raises(
        ConfigError, match=r"is time step 332\.50 of stable-diffusion-v1-5/.*sampling\.levels a multiple"
    ):
        require_fitting_levels(config, of_recipe("sd15"))


@pytest.mark.parametrize("name", RECIPES)
def test_four_steps_of_the_recipe_fit_its_checkpoint(name: str) -> None:
    config, adapter = load_recipe(name).config, of_recipe(name)
    require_fitting_levels(config, adapter)
    sigmas = adapter.to_sigma(torch.tensor(config.sampling.levels)).tolist()
    assert adapter.call_kwargs(sigmas)["timesteps"] == [999, 749, 499, 249]
