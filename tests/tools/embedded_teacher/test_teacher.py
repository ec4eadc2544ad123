"""The demo's teacher is a stock Stable Diffusion 3 pipeline, and our networks are the ones it calls."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from fewstep.embedded.digits.prompts import all_prompts
from tools.embedded_teacher import teacher
from tools.embedded_teacher.teacher import TeacherNetworks
from tools.embedded_teacher.vae import build_vae, store_latent_statistics


@pytest.fixture(scope="module")
def networks() -> TeacherNetworks:
    """The real architecture with random weights; its zero-initialised layers are filled, so that nothing is trivial."""
    torch.manual_seed(0)
    networks = teacher.build_networks(teacher.build_tokenizer()).eval().requires_grad_(False)
    for parameter in networks.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return networks


@pytest.fixture(scope="module")
def folder(networks: TeacherNetworks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("saved") / "teacher"
    vae = build_vae()
    store_latent_statistics(vae, torch.randn(4, 4, 8, 8))
    pipeline = teacher.assemble_pipeline(vae, networks, teacher.build_tokenizer())
    teacher.save_teacher(pipeline, path, guidance_scale=2.0)
    networks.float()
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusion3Pipeline:
    return teacher.load_teacher(folder)


def own_networks(pipeline: StableDiffusion3Pipeline) -> TeacherNetworks:
    return TeacherNetworks(pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)


@pytest.mark.parametrize("word", teacher.vocabulary())
def test_every_word_is_one_token(word: str) -> None:
    assert teacher.build_tokenizer().tokenize(word) == [f"{word}</w>"]


def test_different_prompts_have_different_tokens() -> None:
    ids = teacher.tokenize(teacher.build_tokenizer(), all_prompts())
    assert len(ids.unique(dim=0)) == len(all_prompts())


def test_saved_tokenizer_reads_every_prompt_as_before(pipeline: StableDiffusion3Pipeline) -> None:
    expected = teacher.tokenize(teacher.build_tokenizer(), all_prompts())
    assert torch.equal(teacher.tokenize(pipeline.tokenizer, all_prompts()), expected)


def test_saved_folder_loads_as_the_stock_pipeline_class(folder: Path) -> None:
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusion3Pipeline"


def test_saved_weights_are_half_precision_and_small(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert size < 4_000_000


def test_folder_states_the_facts_of_generation(folder: Path) -> None:
    assert json.loads((folder / teacher.FACTS_FILE).read_text()) == {
        "backbone": "sd3",
        "role": "teacher",
        "max_sequence_length": 1,
        "height": 32,
        "width": 32,
        "steps": 50,
        "guidance_scale": 2.0,
    }


def test_embeddings_equal_those_of_the_stock_pipeline(pipeline: StableDiffusion3Pipeline) -> None:
    prompts = ["a red handwritten three", "a handwritten digit", ""]
    tokens, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=teacher.MAX_SEQUENCE_LENGTH
    )
    own = own_networks(pipeline).encode(teacher.tokenize(pipeline.tokenizer, prompts))
    torch.testing.assert_close(own.tokens, tokens)
    torch.testing.assert_close(own.pooled, pooled)


@torch.no_grad()
def guided_euler(networks: TeacherNetworks, noise: Tensor, ids: Tensor, *, sigmas: Tensor, guidance: float) -> Tensor:
    """Sample by hand: x' = x + (sigma' - sigma) * (null + g (cond - null))."""
    cond, null_cond = (networks.encode(part) for part in ids.chunk(2))
    for sigma, following in itertools.pairwise(sigmas):
        clock = sigma.expand(len(noise))
        null = networks.velocity(noise, clock, null_cond)
        noise = noise + (following - sigma) * (null + guidance * (networks.velocity(noise, clock, cond) - null))
    return noise


def test_stock_call_samples_along_the_velocity_that_training_regresses(pipeline: StableDiffusion3Pipeline) -> None:
    prompts = ["a red handwritten three", "a handwritten nine"]
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    stock = pipeline(
        prompts,
        num_inference_steps=4,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=2.0,
        latents=noise,
        max_sequence_length=teacher.MAX_SEQUENCE_LENGTH,
        output_type="latent",
    ).images
    ids = teacher.tokenize(pipeline.tokenizer, [*prompts, "", ""])
    sigmas = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    own = guided_euler(own_networks(pipeline), noise, ids, sigmas=sigmas, guidance=2.0)
    # float32 rounding over four steps
    torch.testing.assert_close(own, stock, rtol=1e-4, atol=1e-4)


def test_stock_call_draws_32_pixels_without_being_told_the_size(pipeline: StableDiffusion3Pipeline) -> None:
    image = pipeline(
        "a red handwritten three", num_inference_steps=1, guidance_scale=1.0, max_sequence_length=1
    ).images[0]
    assert image.size == (32, 32)
