"""Where a student starts: as the teacher, as the teacher with a LoRA on it, or as another model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config import load_recipe
from fewstep.config.identity import config_hash, identity
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.distributed.world import alone
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import export_student
from fewstep.export.export import export
from fewstep.roles.build import build_roles
from fewstep.roles.role import Role, Roles
from fewstep.testing.text_encoders import WIDTH
from fewstep.training.run import role_settings
from tests.backbones import lora_files, tiny
from tests.training.tiny_run import pipeline, recipe, run

LORA = ("student.weights={kind: lora, rank: 4, alpha: 6.0}", "fake_score.weights={kind: lora, rank: 4, alpha: 6.0}")
SCALE = 0.5
CPU = torch.device("cpu")
LAYERS = ("attn.to_q", "attn.to_out.0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with its teacher, a LoRA ``turbo.safetensors`` on it, and another model ``other``."""
    folder = tmp_path_factory.mktemp("start")
    recipe(folder)
    network = create_model_adapter(folder / "teacher").load_network()
    own = lora_files.factors(network, lora_files.layers_of(network, LAYERS))
    lora_files.diffusers_file(folder / "turbo.safetensors", {"transformer": own})
    other = pipeline()
    with torch.no_grad():
        for weight in other.transformer.parameters():
            weight.mul_(1.25)
    tiny.save(other, folder / "other")
    return folder


def roles(folder: Path, *overrides: str) -> Roles:
    config = recipe(folder, *overrides).config
    return build_roles(create_model_adapter(config.backbone.model, config.backbone), role_settings(config), alone(CPU))


def merged(adapter: ModelAdapter, scale: float) -> nn.Module:
    """The teacher with the LoRA, by the formula."""
    network = adapter.load_network()
    own = lora_files.factors(network, lora_files.layers_of(network, LAYERS))
    with torch.no_grad():
        for layer, pair in own.items():
            weight = dict(network.named_parameters())[f"{layer}.weight"]
            weight.copy_(lora_files.added(weight, pair, scale))
    return network


@torch.no_grad()
def answer(role: Role) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    point = NoisyLatent(torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([0.9, 0.4]))
    shapes = {"prompt_embeds": (12, WIDTH), "pooled_prompt_embeds": (32,)}
    return role(point, Conditioning({name: torch.randn(2, *s, generator=generator) for name, s in shapes.items()}))


def require_same(found: Tensor, expected: Tensor) -> None:
    # W x + B (A x) against (W + B A) x, or equal weights at other addresses: float32 sums in another order
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


STARTS: dict[str, Sequence[str]] = {
    "all weights from a LoRA": ["student.init={lora: FOLDER/turbo.safetensors, scale: 0.5}"],
    "factors from a LoRA": ["student.init={lora: FOLDER/turbo.safetensors, scale: 0.5}", *LORA],
    "all weights from a model": ["student.init={model: FOLDER/other}"],
}


def overrides_of(name: str, folder: Path) -> list[str]:
    return [override.replace("FOLDER", str(folder)) for override in STARTS[name]]


@pytest.mark.parametrize("name", STARTS)
def test_the_student_answers_as_its_start_and_the_others_as_the_teacher(name: str, place: Path) -> None:
    started = roles(place, *overrides_of(name, place))
    adapter = create_model_adapter(place / "teacher")
    expected = create_model_adapter(place / "other").load_network() if "model" in name else merged(adapter, SCALE)
    teacher = answer(Role(adapter.load_network(), started.student.adapter))
    require_same(answer(started.student), answer(Role(expected, started.student.adapter)))
    require_same(answer(started.teacher), teacher)
    require_same(answer(started.fake_score), teacher)
    assert (answer(started.student) - teacher).abs().max() > 1e-2


def test_factors_of_both_roles_start_from_the_same_a(place: Path) -> None:
    """Alignment averages factors one by one: with one A that is an average of what they add."""
    started = roles(place, *overrides_of("factors from a LoRA", place))
    ours, theirs = started.student.weights(), started.fake_score.weights()
    for name, value in ours.items():
        if ".lora_A." in name:
            assert torch.equal(value, theirs[name])
        else:
            assert not theirs[name].any()
    assert sum(bool(value.any()) for name, value in ours.items() if ".lora_B." in name) == 4


def test_a_smaller_rank_leaves_the_other_directions_free(place: Path) -> None:
    started = roles(place, *overrides_of("factors from a LoRA", place))
    changed = {name: value for name, value in started.student.weights().items() if ".lora_B." in name and value.any()}
    for name, value in changed.items():
        assert not value[:, lora_files.RANK :].any()
        assert started.student.weights()[name.replace("lora_B", "lora_A")][lora_files.RANK :].any()


@pytest.mark.parametrize("name", STARTS)
def test_an_update_that_moves_nothing_exports_the_start_and_averages_it(name: str, place: Path, tmp_path: Path) -> None:
    still = ["student.lr=1e-12", "fake_score.lr=1e-12", "budget.student_updates=1"]
    run(recipe(place, *overrides_of(name, place), *still), tmp_path / "run")
    done = export(tmp_path / "run", tmp_path / "student")
    student = create_model_adapter(done.folder, as_teacher=False).load_network()
    adapter = create_model_adapter(place / "teacher")
    expected = create_model_adapter(place / "other").load_network() if "model" in name else merged(adapter, SCALE)
    for (key, weight), wanted in zip(student.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=1e-5, atol=1e-5, msg=key)  # one product in another order
    assert "| started from |" in (done.folder / "README.md").read_text()


def test_an_exported_student_can_be_the_start_of_the_next(place: Path, tmp_path: Path) -> None:
    adapter = create_model_adapter(place / "teacher")
    done = export_student(adapter, merged(adapter, SCALE), tmp_path / "student", levels=(1.0, 0.5))
    started = roles(place, f"student.init={{model: {done.folder}}}")
    require_same(answer(started.student), answer(Role(merged(adapter, SCALE), started.student.adapter)))


# What cannot be a start is refused.


def test_a_model_and_factors_do_not_go_together(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"factors on the teacher cannot hold .* set student.weights=\{kind: full\}"):
        recipe(place, "student.init={model: other/one}", *LORA)


@pytest.mark.parametrize("value", ["{}", "{lora: a.safetensors, model: b}", "{scale: 1}"])
def test_a_start_names_one_thing(value: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=r"student.init names a lora or a model, one of them"):
        recipe(place, f"student.init={value}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{lora: a.safetensors, revision: main}", r"student\.init\.revision"),
        ("{lora: a.safetensors, scale: much}", r"student\.init\.scale is 'much'"),
        ("{model: 3}", r"student\.init\.model is 3"),
    ],
)
def test_a_wrong_setting_of_a_start_is_named(value: str, message: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(place, f"student.init={value}")


def test_a_larger_rank_names_the_rank_to_set(place: Path) -> None:
    small = [override.replace("rank: 4", "rank: 1") for override in LORA]
    with pytest.raises(ConfigError, match=r"of rank 2, but student.weights.rank is 1. Set student.weights.rank=2"):
        roles(place, f"student.init={{lora: {place}/turbo.safetensors}}", *small)


def test_a_layer_without_factors_is_named(place: Path) -> None:
    fewer = [override.replace("rank: 4", "rank: 4, targets: [attn.to_q]") for override in LORA]
    with pytest.raises(ConfigError, match=r"changes the layer .*attn.to_out.0, but the student's factors do not"):
        roles(place, f"student.init={{lora: {place}/turbo.safetensors}}", *fewer)


def test_text_encoders_are_not_the_students(place: Path) -> None:
    encoder: Any = create_model_adapter(place / "teacher").load_pipeline(transformer=None).text_encoder
    own = lora_files.factors(encoder, lora_files.layers_of(encoder, ["q_proj"]))
    lora_files.diffusers_file(place / "words.safetensors", {"text_encoder": own})
    with pytest.raises(ConfigError, match="student and teacher read the same embeddings"):
        roles(place, f"student.init={{lora: {place}/words.safetensors}}")


KEPT: dict[str, dict[str, Any]] = {
    "in shards": {"max_shard_size": "20KB"},
    "in half precision": {"variant": "fp16"},
    "in shards of half precision": {"max_shard_size": "20KB", "variant": "fp16"},
    "as a pickle": {"safe_serialization": False},
    "as pickles": {"max_shard_size": "20KB", "safe_serialization": False},
}


@pytest.mark.parametrize("kept", KEPT)
def test_a_model_is_read_however_its_weights_are_kept(kept: str, place: Path, tmp_path: Path) -> None:
    network: Any = create_model_adapter(place / "other").load_network()
    shutil.copytree(place / "other", tmp_path / "other", ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    if "half" in kept:
        network.to(torch.float16)
    network.save_pretrained(tmp_path / "other" / "transformer", **KEPT[kept])
    started = roles(place, f"student.init={{model: {tmp_path}/other}}")
    expected = {name: weight.float() for name, weight in network.named_parameters()}
    found = dict(started.student.network.named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "is a FluxTransformer2DModel, but the teacher's is a SD3"),
        ({"_class_name": None}, "is a null, but the teacher's is a SD3"),
        ({"num_layers": 1}, "do not belong together|they do not belong to its config.json"),
        ({"num_layers": 3}, "do not belong together|they do not belong to its config.json"),
        ({"in_channels": 16, "out_channels": 16}, "they do not belong to its config.json"),
    ],
)
def test_a_model_that_says_it_is_another_is_refused(
    change: dict[str, Any], told: str, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "other", tmp_path / "other")
    file = tmp_path / "other" / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises((ConfigError, CheckpointError), match=told) as caught:
        roles(place, f"student.init={{model: {tmp_path}/other}}")
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(place: Path) -> None:
    tiny.save(tiny.sd3_pipeline(sd35=False, t5=False, blocks=2), place / "smaller")
    with pytest.raises((ConfigError, CheckpointError), match=r"of another architecture than .* first"):
        roles(place, f"student.init={{model: {place}/smaller}}")


@pytest.mark.parametrize("start", ["{lora: ./nowhere.safetensors}", "{model: ./nowhere}", "{model: ./x.safetensors}"])
def test_a_start_that_is_not_there_ends_the_run_before_anything_is_embedded(
    start: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"There is no|is not a folder"):
        run(recipe(place, f"student.init={start}"), tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / ".cache").exists()


def test_it_is_part_of_a_run_and_absent_from_the_names_of_earlier_ones() -> None:
    plain = load_recipe("digits").config
    assert "init" not in identity(plain)["student"]
    others = [load_recipe("digits", [f"student.init={{lora: ./a.safetensors, scale: {s}}}"]).config for s in (1, 2)]
    assert len({config_hash(config) for config in [plain, *others]}) == 3
