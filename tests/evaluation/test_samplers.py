"""Models that are not ours: drawn by the stock pipeline with its own scheduler, from our noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.backbones import create_model_adapter
from fewstep.backbones.source import open_checkpoint
from fewstep.backbones.stock import pipeline_class
from fewstep.errors import ConfigError
from fewstep.evaluation.models import resolve
from fewstep.evaluation.samplers import Sampler, open_sampler
from fewstep.export import export_student
from fewstep.sampling.model_spec import parse_spec
from fewstep.sampling.sampler import generator_for
from fewstep.testing.closeness import assert_same_pictures
from tests.backbones import tiny_vp
from tests.evaluation.tiny_models import write_teacher

PROMPTS, SEEDS = ["a red cat", "two blue dogs"], [0, 7]
SIZE = "height=16,width=16"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("models") / "stranger")


def opened(text: str) -> Sampler:
    spec = parse_spec(text)
    return open_sampler(spec, resolve(spec, "student"), torch.device("cpu"))


def drawn(text: str, *, steps: int = 3, only: slice = slice(None)) -> np.ndarray:
    images, _ = opened(text).sample(PROMPTS[only], SEEDS[only], steps=steps)
    return as_numbers(images)


def as_numbers(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=int) for image in images])


def test_a_stranger_is_drawn_as_its_own_pipeline_draws(folder: Path) -> None:
    pipeline: Any = pipeline_class(open_checkpoint(str(folder))).from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None
    )
    direct = pipeline(
        PROMPTS,
        num_inference_steps=3,
        guidance_scale=2.0,
        height=16,
        width=16,
        generator=[generator_for(prompt, seed) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)],
    ).images
    assert_same_pictures(drawn(f"{folder},{SIZE},steps=3,guidance_scale=2"), as_numbers(direct))


def test_both_samplers_draw_the_same_picture_from_the_same_noise(folder: Path) -> None:
    # the stock scheduler shifts the levels that it is given; our own grid of three steps is these levels, shifted
    stock = drawn(f"{folder},{SIZE},sigmas=1/0.66666667/0.33333333,guidance_scale=2,sampler=stock")
    own = drawn(f"{folder},{SIZE},steps=3,guidance_scale=2,sampler=own")
    # the pipeline's scheduler and our loop round the last bit of a float differently
    assert np.abs(stock - own).max() <= 1


def test_steps_and_guidance_of_a_stranger_are_its_pipelines_defaults(folder: Path) -> None:
    entry = resolve(parse_spec(str(folder)), "student")
    assert (entry.sampling.sampler, entry.sampling.steps, entry.sampling.guidance_scale) == ("stock", 28, 7.0)


def test_a_student_that_re_noises_is_drawn_alike_by_both_samplers_in_any_company(folder: Path, tmp_path: Path) -> None:
    adapter = create_model_adapter(folder, as_teacher=False)
    export_student(adapter, adapter.load_network(), tmp_path / "student", levels=(1.0, 0.6, 0.2), step="renoise")
    student = f"{tmp_path / 'student'},{SIZE},guidance_scale=1"  # its scheduler has the levels, shifted by 3
    own, stock = drawn(f"{student},sampler=own"), drawn(f"{student},sampler=stock")
    assert np.abs(stock - own).max() <= 1
    alone = drawn(f"{student},sampler=stock", only=slice(1, 2))
    assert np.abs(stock[1:] - alone).max() <= 1


def test_stated_sigmas_reach_the_stock_scheduler(folder: Path) -> None:
    grid = drawn(f"{folder},{SIZE},guidance_scale=1,sigmas=1/0.5/0.25")
    other = drawn(f"{folder},{SIZE},guidance_scale=1,steps=3")
    assert np.abs(grid - other).max() > 0


def test_a_lora_on_a_base_is_drawn_at_its_scale(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline: Any = pipeline_class(open_checkpoint(str(folder))).from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None
    )
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in pipeline.transformer.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
    factors = get_peft_model_state_dict(pipeline.transformer)
    type(pipeline).save_lora_weights(tmp_path / "factors", transformer_lora_layers=factors)
    base = drawn(f"{folder},{SIZE},guidance_scale=1")
    with_factors = f"{folder},{SIZE},guidance_scale=1,lora={tmp_path / 'factors'}"
    assert np.abs(drawn(with_factors) - base).max() > 1
    assert np.abs(drawn(f"{with_factors},lora_scale=0") - base).max() <= 1


@pytest.fixture(scope="module")
def consistency(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UNet with the scheduler of published few-step models, which adds noise on the way."""
    from diffusers import LCMScheduler

    pipeline = tiny_vp.sd_pipeline()
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    folder = tmp_path_factory.mktemp("models") / "lcm"
    pipeline.save_pretrained(folder)
    return folder


def test_noise_that_a_scheduler_adds_depends_on_no_neighbour(consistency: Path) -> None:
    spec = f"{consistency},height=16,width=16,guidance_scale=1"
    together = drawn(spec, steps=4)
    alone = drawn(spec, steps=4, only=slice(1, 2))
    assert np.abs(together[1] - alone[0]).max() <= 1


def test_the_calls_of_a_stranger_are_counted(consistency: Path) -> None:
    _, guided = opened(f"{consistency},height=16,width=16,guidance_scale=3").sample(PROMPTS, SEEDS, steps=4)
    _, plain = opened(f"{consistency},height=16,width=16,guidance_scale=1").sample(PROMPTS, SEEDS, steps=4)
    assert (guided, plain) == (8, 4)


def test_a_scheduler_that_takes_no_sigmas_says_so(folder: Path, tmp_path: Path) -> None:
    from diffusers import PNDMScheduler

    pipeline = tiny_vp.sd_pipeline()
    pipeline.scheduler = PNDMScheduler(steps_offset=1)
    pipeline.save_pretrained(tmp_path / "sd15")
    with pytest.raises(ConfigError, match=r"The PNDMScheduler of this model takes no sigmas .*; give steps instead"):
        drawn(f"{tmp_path / 'sd15'},height=16,width=16,sigmas=1/0.5/0.1")


def test_a_class_that_diffusers_lacks_is_named(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    components = {**checkpoint.components, "model_index": {"_class_name": "PipelineOfTomorrow"}}
    with pytest.raises(ConfigError, match=r"is a PipelineOfTomorrow, which the installed diffusers .* does not have"):
        pipeline_class(type(checkpoint)(checkpoint.model, None, components, None))
