"""What is particular to FLUX.1-dev: guidance is an input, and the direction of guidance is a choice."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.embedded_guidance import GuidanceEmbedding
from fewstep.backbones.flux import FluxAdapter
from fewstep.config import load_recipe
from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.data.embeddings import cache_key
from fewstep.distributed.world import alone
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.roles.build import RoleSettings, build_roles
from fewstep.sampling import load_model, sample, sample_latents, teacher_sigmas, velocity_field
from fewstep.testing import stock_pack, stock_unpack
from fewstep.training.trainer import Trainer
from tests.backbones import tiny_packed
from tests.backbones.families import REAL_CONFIGURATIONS

LEVELS = [1.0, 0.75, 0.5, 0.25]
PROMPTS = ["a red cat", "two blue dogs"]


def adapter_of(*, network: dict[str, Any] | None = None, **config: Any) -> FluxAdapter:
    components = dict(REAL_CONFIGURATIONS["flux1-dev"].components)
    components["transformer"] = {**components["transformer"], **(network or {})}
    return FluxAdapter(FluxAdapter.config_class(model="flux1-dev", **config), components)


def conditioning(count: int = 2) -> Conditioning:
    return Conditioning({"prompt_embeds": torch.zeros(count, 3, 4), "pooled_prompt_embeds": torch.zeros(count, 4)})


class Recorder(nn.Module):
    """Answers zero and remembers what it was asked."""

    def forward(self, **arguments: Any) -> tuple[Tensor]:
        self.arguments = arguments
        return (torch.zeros_like(arguments["hidden_states"]),)


def asked_of(adapter: FluxAdapter, cond: Conditioning, sigma: float = 0.75) -> dict[str, Any]:
    network = Recorder()
    count = len(cond)
    adapter.velocity(network, NoisyLatent(torch.zeros(count, 16, 4, 6), torch.full((count,), sigma)), cond)
    return network.arguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flux") / "teacher"
    tiny_packed.flux_pipeline().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def without_embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undistilled") / "teacher"
    tiny_packed.flux_pipeline(guidance_embeds=False).save_pretrained(path)
    return path


def tiny_adapter(folder: Path, **config: Any) -> FluxAdapter:
    chosen = FluxAdapter.config_class(model=str(folder), height=16, width=16, max_sequence_length=24, **config)
    adapter = create_model_adapter(folder, chosen)
    assert isinstance(adapter, FluxAdapter)
    return adapter


# The clock, the layout and the sizes.


def test_four_steps_at_1024_pixels_are_the_published_ones() -> None:
    sigmas = adapter_of().to_sigma(torch.tensor(LEVELS))
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.9045, 0.7595, 0.5128]), rtol=0, atol=5e-5)


def test_shift_follows_the_size_of_the_picture() -> None:
    sigmas = adapter_of(height=512, width=512).to_sigma(torch.tensor(LEVELS))
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.8492, 0.6525, 0.3849]), rtol=0, atol=5e-5)


def test_latent_of_a_1024_pixel_picture() -> None:
    assert adapter_of().latent_shape(1024, 512) == (16, 128, 64)


def test_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1000 x 1024 pixels do not fit flux1-dev.*multiples of 16.*992 x 1024"):
        adapter_of(height=1000)


def test_network_gets_tokens_and_float32_positions_under_bfloat16() -> None:
    adapter = adapter_of()
    adapter.compute_dtype = torch.bfloat16
    asked = asked_of(adapter, conditioning())
    assert asked["hidden_states"].shape == (2, 6, 64)
    assert asked["hidden_states"].dtype == asked["encoder_hidden_states"].dtype == torch.bfloat16
    assert asked["pooled_projections"].dtype == torch.bfloat16
    assert asked["img_ids"].dtype == asked["txt_ids"].dtype == asked["guidance"].dtype == torch.float32
    assert asked["txt_ids"].shape == (3, 3)


def test_time_is_rounded_under_bfloat16_as_the_pipeline_rounds_it() -> None:
    adapter = adapter_of()
    adapter.compute_dtype = torch.bfloat16
    assert (1000 * asked_of(adapter, conditioning(), sigma=0.75)["timestep"]).tolist() == [752.0, 752.0]


# The embedded guidance.


def test_network_is_asked_at_the_deployment_scale() -> None:
    assert asked_of(adapter_of(guidance=2.5), conditioning())["guidance"].tolist() == [2.5, 2.5]


def test_guided_velocity_is_one_call_at_the_asked_scale() -> None:
    adapter, network = adapter_of(), Recorder()
    point = NoisyLatent(torch.zeros(2, 16, 4, 6), torch.tensor([0.9, 0.4]))
    adapter.guided_velocity(network, point, conditioning(), conditioning(), guidance_scale=5.0)
    assert network.arguments["guidance"].tolist() == [5.0, 5.0]


def scales(prompts: PromptBatch) -> dict[str, list[float]]:
    roles = {"student": prompts.student, "teacher": prompts.teacher}
    branches = {"positive": prompts.positive, "negative": prompts.negative}
    return {name: cond.tensors["guidance"].tolist() for name, cond in (roles | branches).items()}


def test_guidance_embedding_compares_two_scales_of_the_same_prompt() -> None:
    cond, null = conditioning(1), conditioning(1)
    prompts = adapter_of(guidance=3.0, ca=GuidanceEmbedding(high=3.5, low=1.0)).prompt_batch(cond, null)
    assert scales(prompts) == {"student": [3.0], "teacher": [1.0], "positive": [3.5], "negative": [1.0]}
    assert prompts.contrast == pytest.approx(1 / 2.5)
    assert prompts.negative.tensors["prompt_embeds"] is cond.tensors["prompt_embeds"]


def test_guidance_embedding_asks_the_low_scale_once() -> None:
    prompts = adapter_of().prompt_batch(conditioning(), conditioning())
    assert prompts.teacher is prompts.negative


def test_null_prompt_compares_with_the_empty_prompt_at_scale_one() -> None:
    cond, null = conditioning(1), conditioning(1)
    prompts = adapter_of(ca={"mode": "null_prompt"}).prompt_batch(cond, null)
    assert scales(prompts) == {"student": [3.5], "teacher": [1.0], "positive": [1.0], "negative": [1.0]}
    assert prompts.positive is prompts.teacher
    assert prompts.negative.tensors["prompt_embeds"] is null.tensors["prompt_embeds"]
    assert prompts.contrast == 1.0


def test_without_a_direction_the_teacher_is_asked_at_the_deployment_scale() -> None:
    prompts = adapter_of(ca={"mode": "off"}).prompt_batch(conditioning(1), conditioning(1))
    assert set(map(tuple, scales(prompts).values())) == {(3.5,)}


def test_both_scales_in_one_call_are_what_they_are_alone(folder: Path) -> None:
    adapter = tiny_adapter(folder)
    network = adapter.load_network()
    cond = adapter.encode(adapter.load_pipeline(transformer=None, vae=None), PROMPTS)
    prompts = adapter.prompt_batch(cond, cond)
    point = NoisyLatent(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.9, 0.4]))
    twice = NoisyLatent(torch.cat([point.x_sigma] * 2), torch.cat([point.sigma] * 2))
    with torch.no_grad():
        both = adapter.velocity(network, twice, Conditioning.cat([prompts.positive, prompts.negative]))
        high, low = (adapter.velocity(network, point, told) for told in (prompts.positive, prompts.negative))
    torch.testing.assert_close(both, torch.cat([high, low]), rtol=1e-5, atol=1e-6)
    assert (high - low).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("ca", "sentence"),
    [
        (
            {"mode": "guidance_embedding"},
            "scale 1 is a faithful unguided prediction of a guidance-distilled network is",
        ),
        ({"mode": "null_prompt"}, "still predicts an unconditional velocity for the empty prompt is an assumption"),
        ({"mode": "off"}, "no direction of guidance is used .* it may be unstable"),
    ],
)
def test_a_warning_says_once_what_is_unproven(
    ca: dict[str, Any], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of(ca=ca)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            adapter.prompt_batch(conditioning(), conditioning())
    assert len(caplog.messages) == 1
    assert re.search(rf"^flux1-dev: .*{sentence}", caplog.messages[0])


# What the choices exclude.


@pytest.mark.parametrize(
    ("overrides", "term", "without"),
    [
        (["backbone.ca.mode=off"], "ca", "ca=null"),
        (["backbone.ca.mode=off", "terms.ca=null", "terms.dm.guidance_scale=2"], "dm", "dm.guidance_scale=1"),
    ],
)
def test_term_that_follows_guidance_is_refused_without_a_direction(
    overrides: list[str], term: str, without: str
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"terms\.{term} follows the teacher's guidance, but backbone\.ca\.mode is off; set backbone\.ca=.*, or "
        rf"train without it: terms\.{without} ",
    ):
        load_recipe("flux1-dev", overrides)


def test_without_ca_and_without_a_direction_the_recipe_loads() -> None:
    config = load_recipe("flux1-dev", ["backbone.ca.mode=off", "terms.ca=null"]).config
    assert isinstance(config.backbone, FluxAdapter.config_class)
    assert config.backbone.ca.mode == "off"


def test_high_scale_must_be_above_the_low_one() -> None:
    with pytest.raises(ValidationError, match=r"high is 1\.0, which must be above low, 1\.0"):
        FluxAdapter.config_class.model_validate({"model": "m", "ca": {"mode": "guidance_embedding", "high": 1.0}})


def test_more_text_than_the_pipeline_allows_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 512"):
        FluxAdapter.config_class(model="m", max_sequence_length=513)


def test_guidance_embedding_needs_a_network_that_has_one() -> None:
    with pytest.raises(ConfigError, match=r"flux1-dev has no guidance embedding .* Set backbone\.ca=\{mode: null_pr"):
        adapter_of(network={"guidance_embeds": False})


# FLUX.1-schnell and undistilled derivatives.


def make_schnell(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dynamic_shifting": False, "shift": 1.0}))


def test_schnell_is_refused_by_both_of_its_flags(tmp_path: Path) -> None:
    tiny_packed.flux_pipeline(guidance_embeds=False).save_pretrained(tmp_path / "renamed")
    make_schnell(tmp_path / "renamed")
    with pytest.raises(ConfigError, match=r"renamed is FLUX\.1-schnell, already distilled to 1 to 4 steps"):
        create_model_adapter(tmp_path / "renamed")


def test_model_that_only_looks_like_schnell_can_be_allowed(tmp_path: Path) -> None:
    tiny_packed.flux_pipeline(guidance_embeds=False).save_pretrained(tmp_path / "renamed")
    make_schnell(tmp_path / "renamed")
    adapter = tiny_adapter(tmp_path / "renamed", ca={"mode": "null_prompt"}, allow_distilled=True)
    assert adapter.to_sigma(torch.tensor(LEVELS)).tolist() == LEVELS


@pytest.mark.parametrize("negative_prompt", ["", "blurred"])
def test_derivative_without_a_guidance_embedding_is_guided_by_another_prompt(
    without_embedding: Path, negative_prompt: str
) -> None:
    adapter = tiny_adapter(without_embedding, ca={"mode": "null_prompt"})
    pipeline = adapter.load_pipeline()
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    cond, negative = adapter.encode(pipeline, PROMPTS), adapter.encode_negative(pipeline, negative_prompt)
    field = velocity_field(adapter, adapter.load_network(), cond, negative, guidance_scale=3.0)
    ours = sample_latents(field, noise, teacher_sigmas(adapter, 4))
    stock = pipeline(
        PROMPTS,
        **{**adapter.guidance.call(3.0, num_prompts=2), "negative_prompt": [negative_prompt] * 2},
        latents=stock_pack(pipeline, noise),
        sigmas=LEVELS,
        num_inference_steps=4,
        output_type="latent",
        height=16,
        width=16,
        max_sequence_length=24,
    ).images
    # float32 sums in another order, through four network calls
    torch.testing.assert_close(ours, stock_unpack(pipeline, stock, 16, 16), rtol=1e-5, atol=1e-5)


def test_student_of_such_a_derivative_is_drawn_without_guidance(without_embedding: Path) -> None:
    assert tiny_adapter(without_embedding, ca={"mode": "null_prompt"}).call_kwargs([1.0])["true_cfg_scale"] == 1.0


def test_checkpoint_without_a_config_gets_a_choice_that_it_can_run(without_embedding: Path) -> None:
    assert create_model_adapter(without_embedding).config.model_dump()["ca"] == {"mode": "null_prompt"}


# Export and drawing.


def test_exported_student_records_the_scale_it_was_trained_at(folder: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(folder, guidance=2.5)
    exported = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS)
    facts = json.loads((exported.folder / "fewstep.json").read_text())
    assert facts["guidance_scale"] == facts["backbone"]["guidance"] == 2.5
    assert "    guidance_scale=2.5,\n" in exported.stock_call
    assert load_model(exported.folder, "cpu").default_guidance_scale() == 2.5


def test_exported_student_opens_with_the_config_it_was_trained_with(folder: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(folder, ca={"mode": "null_prompt"})
    exported = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS)
    reopened = create_model_adapter(exported.folder, adapter.config, as_teacher=False)
    assert reopened.config == adapter.config.model_copy(update={"model": str(exported.folder)})


def test_choices_of_guidance_do_not_embed_the_prompts_again(folder: Path) -> None:
    first, other = tiny_adapter(folder), tiny_adapter(folder, ca={"mode": "null_prompt"}, guidance=2.0)
    keys = {cache_key(adapter, PROMPTS, dtype=torch.float32) for adapter in (first, other)}
    assert len(keys) == 1


def test_scale_of_one_is_an_embedded_scale_and_not_the_deployment_value(folder: Path) -> None:
    model = load_model(folder, "cpu")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    model.adapter.config = model.adapter.config.model_copy(update={"height": 16, "width": 16})
    at_one, deployed, stated = (
        model.latents(PROMPTS[:1], [0], steps=2, noise=noise, guidance_scale=scale) for scale in (1.0, None, 3.5)
    )
    assert torch.equal(deployed, stated)
    assert (at_one - deployed).abs().max() > 1e-3


@pytest.mark.parametrize("guidance_scale", [None, 1.0, 5.0])
def test_negative_prompt_is_refused_because_there_is_no_branch_for_it(
    folder: Path, guidance_scale: float | None
) -> None:
    with pytest.raises(ConfigError) as refused:
        sample(folder, "a red cat", guidance_scale=guidance_scale, negative_prompt="blurred", device="cpu")
    assert str(refused.value) == (
        f"{folder} takes its guidance scale as an input of the network and has no unconditional branch, so a negative "
        "prompt has nothing to take the place of; leave it out."
    )


# Training.


class Embedded:
    """Prompt embeddings in memory."""

    def __init__(self, cond: Conditioning, null: Conditioning) -> None:
        self._cond, self.null = cond, null

    def __len__(self) -> int:
        return len(self._cond)

    def batch(self, indices: Sequence[int]) -> Conditioning:
        return self._cond.rows(torch.tensor(indices))


def trainer_of(folder: Path, *overrides: str) -> Trainer:
    tiny = [f"backbone.model={folder}", "backbone.height=16", "backbone.width=16", "backbone.max_sequence_length=24"]
    cheap = ["batch=2", "precision.compute=fp32", "memory.gradient_checkpointing=false", "terms.isg=null"]
    config = load_recipe("flux1-dev", [*tiny, *cheap, *overrides]).config
    adapter = create_model_adapter(folder, config.backbone)
    pipeline = adapter.load_pipeline(transformer=None, vae=None)
    embedded = Embedded(adapter.encode(pipeline, PROMPTS), adapter.encode_null(pipeline))
    roles = build_roles(adapter, RoleSettings(), alone(torch.device("cpu")))
    return Trainer(config, adapter, roles, embedded, torch.device("cpu"))


def guidance_asked(network: nn.Module) -> list[list[float]]:
    """Filled with the scales of every call of a network from now on."""
    calls: list[list[float]] = []
    network.register_forward_pre_hook(
        lambda module, arguments, options: calls.append(options["guidance"].tolist()), with_kwargs=True
    )
    return calls


def test_teacher_answers_both_scales_in_one_batched_call(folder: Path) -> None:
    trainer = trainer_of(folder)
    calls = guidance_asked(trainer.roles.teacher.network)
    for _ in range(2):
        trainer.run_step()
    # ca and dm at the low scale, ca once more at the high one, then cdm, whose graph comes later; two samples each
    assert [sorted(call) for call in calls] == [[1.0] * 4 + [3.5] * 2, [1.0] * 2]


def test_intra_segment_guidance_asks_the_teacher_once_at_the_drawn_embedded_scale(folder: Path) -> None:
    trainer = trainer_of(folder, "terms.isg={margin: 0.02, guidance: {low: 5.0, high: 5.0}}")
    calls = guidance_asked(trainer.roles.teacher.network)
    for _ in range(2):
        trainer.run_step()
    assert [call for call in calls if 5.0 in call] == [[5.0, 5.0]]


@pytest.mark.parametrize("role", ["student", "fake_score"])
def test_student_and_fake_score_are_only_ever_asked_at_the_deployment_scale(folder: Path, role: str) -> None:
    trainer = trainer_of(folder, "backbone.guidance=2.5")
    calls = guidance_asked(getattr(trainer.roles, role).network)
    for _ in range(2):
        trainer.run_step()
    assert {scale for call in calls for scale in call} == {2.5}


@pytest.mark.parametrize("overrides", [["backbone.ca.mode=null_prompt"], ["backbone.ca.mode=off", "terms.ca=null"]])
def test_other_directions_train_as_well(folder: Path, overrides: list[str]) -> None:
    trainer = trainer_of(folder, *overrides)
    before = {name: value.clone() for name, value in trainer.student_weights().items()}
    reports = [trainer.run_step() for _ in range(2)]
    assert reports[-1].student_updated
    moved = [name for name, value in trainer.student_weights().items() if not torch.equal(value, before[name])]
    assert len(moved) > len(before) / 2


def test_recipe_aligns_after_the_student_as_senseflow_does() -> None:
    align = load_recipe("flux1-dev").config.fake_score.align
    assert align is not None
    assert (align.decay, align.after, align.every) == (0.97, "student", 1)


def test_pull_of_the_recipe_stays_within_the_scales_that_the_teacher_was_distilled_at() -> None:
    config = load_recipe("flux1-dev").config
    assert isinstance(config.backbone, FluxAdapter.config_class)
    direction = config.backbone.ca
    assert isinstance(direction, GuidanceEmbedding)
    assert config.terms.ca is not None
    assert config.terms.ca.scale == direction.high - direction.low
    assert direction.high == config.backbone.guidance == config.sampling.teacher_guidance_scale


def test_its_recipe_has_senseflows_two_patches() -> None:
    config = load_recipe("flux1-dev").config
    assert config.fake_score.align is not None and config.terms.isg is not None
    assert (config.fake_score.align.decay, config.fake_score.align.after) == (0.97, "student")
    isg = config.terms.isg
    assert (isg.weight, isg.margin, isg.guidance.low, isg.guidance.high) == (1.0, 0.02, 1.0, 8.0)
