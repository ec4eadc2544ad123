"""What is particular to LongCat-Image: renormalised guidance, letters in quotation marks, no torchvision."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.longcat import LongCatAdapter
from fewstep.backbones.packed import pack
from fewstep.backbones.prompt_lengths import warn_of_cut_prompts
from fewstep.config import load_recipe
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.sampling import load_model
from fewstep.testing import stock_pack, stock_unpack
from tests.backbones import tiny_packed
from tests.backbones.families import REAL_CONFIGURATIONS

LEVELS = [1.0, 0.75, 0.5, 0.25]
PROMPTS = ["a red cat", 'a sign that says "open"']


def adapter_of(**config: Any) -> LongCatAdapter:
    components = REAL_CONFIGURATIONS["longcat-image"].components
    return LongCatAdapter(LongCatAdapter.config_class(model="longcat-image", **config), components)


class Recorder(nn.Module):
    """Answers zero and remembers what it was asked."""

    def forward(self, **arguments: Any) -> tuple[Tensor]:
        self.arguments = arguments
        return (torch.zeros_like(arguments["hidden_states"]),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("longcat") / "teacher"
    tiny_packed.longcat_pipeline().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def released_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose rewriting slot names the class of the released checkpoint, which needs torchvision."""
    path = tmp_path_factory.mktemp("released") / "teacher"
    tiny_packed.longcat_pipeline().save_pretrained(path)
    index = json.loads((path / "model_index.json").read_text())
    index["text_processor"] = ["transformers", "Qwen2VLProcessor"]
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def tiny_adapter(folder: Path, **config: Any) -> LongCatAdapter:
    adapter = create_model_adapter(
        folder, LongCatAdapter.config_class(model=str(folder), height=16, width=16, **config)
    )
    assert isinstance(adapter, LongCatAdapter)
    return adapter


# The clock, the layout and the sizes.


def test_four_steps_at_1024_pixels() -> None:
    sigmas = adapter_of().to_sigma(torch.tensor(LEVELS))
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.9045, 0.7595, 0.5128]), rtol=0, atol=5e-5)


def test_latent_of_a_1024_pixel_picture() -> None:
    assert adapter_of().latent_shape(1024, 512) == (16, 128, 64)


def test_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1024 x 1000 pixels do not fit longcat-image.*multiples of 16.*1024 x 992"):
        adapter_of(width=1000)


def test_positions_stay_float32_under_bfloat16() -> None:
    adapter, network = adapter_of(), Recorder()
    adapter.compute_dtype = torch.bfloat16
    cond = Conditioning({"prompt_embeds": torch.zeros(1, 512, 8)})
    adapter.velocity(network, NoisyLatent(torch.zeros(1, 16, 256, 4), torch.tensor([0.75])), cond)
    asked = network.arguments
    assert asked["img_ids"].dtype == asked["txt_ids"].dtype == torch.float32
    assert asked["img_ids"][-1].tolist() == [1.0, 512.0 + 127.0, 512.0 + 1.0]
    assert asked["txt_ids"][-1].tolist() == [0.0, 511.0, 511.0]
    assert asked["hidden_states"].dtype == asked["encoder_hidden_states"].dtype == torch.bfloat16


def test_time_is_rounded_under_bfloat16_as_the_pipeline_rounds_it() -> None:
    adapter, network = adapter_of(), Recorder()
    adapter.compute_dtype = torch.bfloat16
    cond = Conditioning({"prompt_embeds": torch.zeros(1, 4, 8)})
    adapter.velocity(network, NoisyLatent(torch.zeros(1, 16, 4, 4), torch.tensor([0.999])), cond)
    assert (1000 * network.arguments["timestep"]).item() == 1000.0


# Guidance.


def guided(adapter: LongCatAdapter, folder: Path) -> tuple[Tensor, Tensor]:
    """A guided velocity and the conditional one at the same point."""
    network = adapter.load_network()
    pipeline = adapter.load_pipeline(transformer=None, vae=None)
    cond, null = adapter.encode(pipeline, PROMPTS), adapter.encode_null(pipeline).expand(2)
    noise = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    point = NoisyLatent(noise, torch.tensor([0.9, 0.4]))
    with torch.no_grad():
        velocity = adapter.guided_velocity(network, point, cond, null, guidance_scale=6.0)
        return velocity, adapter.velocity(network, point, cond)


def test_no_renormalised_token_is_longer_than_the_conditional_one(folder: Path) -> None:
    velocity, conditional = guided(tiny_adapter(folder), folder)
    assert (pack(velocity).norm(dim=-1) <= pack(conditional).norm(dim=-1) * (1 + 1e-5)).all()


def test_plain_guidance_has_longer_tokens(folder: Path) -> None:
    velocity, conditional = guided(tiny_adapter(folder, renormalise=None), folder)
    assert (pack(velocity).norm(dim=-1) > pack(conditional).norm(dim=-1) * (1 + 1e-3)).any()


def test_floor_of_one_is_plain_guidance(folder: Path) -> None:
    limited, _ = guided(tiny_adapter(folder, renormalise={"floor": 1.0}), folder)
    plain, _ = guided(tiny_adapter(folder, renormalise=None), folder)
    torch.testing.assert_close(limited, plain, rtol=0, atol=0)


def test_training_follows_the_raw_difference_of_the_branches(folder: Path) -> None:
    cond = Conditioning({"prompt_embeds": torch.zeros(2, 4, 8)})
    null = Conditioning({"prompt_embeds": torch.ones(2, 4, 8)})
    prompts = adapter_of().prompt_batch(cond, null)
    assert (prompts.positive, prompts.negative, prompts.contrast) == (cond, null, 1.0)


def test_floor_outside_its_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        LongCatAdapter.config_class.model_validate({"model": "m", "renormalise": {"floor": 2.0}})


def test_null_in_a_recipe_switches_renormalisation_off() -> None:
    config = load_recipe("longcat-image", ["backbone.renormalise=null"]).config
    assert isinstance(config.backbone, LongCatAdapter.config_class)
    assert config.backbone.renormalise is None


# Text.


def test_text_in_quotation_marks_is_read_letter_by_letter() -> None:
    pipeline = tiny_packed.longcat_pipeline()
    asked: list[str] = []
    tokenizer = pipeline.tokenizer

    class Watched(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: str, *arguments: Any, **options: Any) -> Any:
            asked.append(text)
            return super().__call__(text, *arguments, **options)

    tokenizer.__class__ = Watched
    adapter_of().encode(pipeline, PROMPTS[1:])
    assert asked[:7] == ["a sign that says ", '"', "o", "p", "e", "n", '"']


def test_prompts_that_are_long_because_of_their_quotations_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    pipeline, adapter = tiny_packed.longcat_pipeline(), adapter_of()
    # a token that stands for two letters, which quotation marks take apart again
    tokenizer = type(pipeline.tokenizer)(
        vocab={**pipeline.tokenizer.get_vocab(), "aa": len(pipeline.tokenizer)}, merges=[("a", "a")]
    )
    plain, quoted = "a" * 600, f'"{"a" * 600}"'
    assert adapter.count_tokens(tokenizer, [plain, quoted, "a cat's tail"]) == [300, 602, 12]
    assert adapter.count_tokens(tokenizer, [""]) == [0]
    pipeline.register_modules(tokenizer=tokenizer)
    with caplog.at_level("WARNING", logger="fewstep"):
        warn_of_cut_prompts(adapter, pipeline, [plain, quoted])
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in said] == ["1 of 2 prompts is longer than 512 tokens and is cut"]


def test_prompts_are_not_rewritten() -> None:
    assert adapter_of().call_kwargs([1.0])["enable_prompt_rewrite"] is False


# The processor that needs torchvision.


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_released_layout_loads_without_torchvision(released_layout: Path) -> None:
    pipeline = tiny_adapter(released_layout).load_pipeline()
    assert pipeline.text_processor is None
    assert pipeline.transformer is not None


def test_student_of_the_released_layout_runs_in_stock_diffusers(released_layout: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(released_layout)
    exported = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS)
    assert "text_processor=None" in exported.stock_call
    names: dict[str, Any] = {}
    loading = exported.stock_call.split("image = ")[0]
    exec(loading, names)
    noise = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(4))
    pipeline = names["pipeline"]
    stock = pipeline(PROMPTS, latents=stock_pack(pipeline, noise), output_type="latent", **names["call"]).images
    ours = load_model(exported.folder, "cpu").latents(PROMPTS, [0, 0], noise=noise)
    # float32 sums in another order, through four network calls
    torch.testing.assert_close(ours, stock_unpack(pipeline, stock, 16, 16), rtol=1e-5, atol=1e-5)


def test_processor_is_still_part_of_the_exported_folder(released_layout: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(released_layout)
    exported = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS)
    index = json.loads((exported.folder / "model_index.json").read_text())
    assert index["text_processor"] == ["transformers", "Qwen2VLProcessor"]
    assert (exported.folder / "text_processor").is_dir()


# The recipe.


def test_recipe_states_the_published_settings() -> None:
    config = load_recipe("longcat-image").config
    assert (config.batch, config.budget.student_updates, config.student.every) == (64, 1000, 2)
    assert (config.student.lr, config.fake_score.lr) == (1e-5, 5e-6)
    assert (config.sampling.teacher_steps, config.sampling.teacher_guidance_scale) == (50, 4.5)
    assert config.terms.ca is not None
    assert config.terms.ca.scale == 7.0
    align = config.fake_score.align
    assert align is not None
    assert (align.decay, align.after) == (0.999, "fake_score")
