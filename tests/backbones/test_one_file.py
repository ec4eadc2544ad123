"""A teacher that is one safetensors file in its original layout, beside the folder of the model it was made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewstep.backbones import adapter_class, create_model_adapter
from fewstep.backbones.lora_source import LoraSource
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config import load_recipe
from fewstep.config.identity import config_hash, identity
from fewstep.data.embeddings import cache_key
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import export_student
from fewstep.testing.case import PROMPTS
from tests.backbones import lora_files, original_layout
from tests.backbones.families import FAMILIES

KINDS = ("sd15", "sdxl", "sd3", "flux")


@dataclass(frozen=True)
class Tuned:
    """A fine-tune of a tiny pipeline: every weight of it differs from the folder beside it.

    Attributes:
        folder: The diffusers folder of the original.
        pipeline: The fine-tune.
        whole, bare: All of it as one file, and its network alone.
    """

    kind: str
    folder: Path
    pipeline: Any
    whole: Path
    bare: Path

    def adapter(self, file: Path, **fields: Any) -> ModelAdapter:
        family = FAMILIES[self.kind]
        height, width = family.size
        config = adapter_class(family.kind).config_class(
            kind=family.kind,
            model=str(file),
            components=str(self.folder),
            height=height,
            width=width,
            **family.config,
            **fields,
        )
        return create_model_adapter(file, config)

    @property
    def component(self) -> str:
        return "unet" if self.kind in ("sd15", "sdxl") else "transformer"

    @property
    def encoders(self) -> list[str]:
        return [name for name, part in self.pipeline.components.items() if name.startswith("text_enc") and part]


@pytest.fixture(scope="module")
def all_tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tuned]:
    made = {}
    for kind in KINDS:
        place = tmp_path_factory.mktemp(kind)
        pipeline = FAMILIES[kind].build()
        pipeline.save_pretrained(place / "original")
        with torch.no_grad():
            for part in pipeline.components.values():
                for weight in part.parameters() if isinstance(part, nn.Module) else ():
                    weight.mul_(1.25)
            if kind == "sd3":  # in these files the first encoder's projection is the identity, and not stored
                pipeline.text_encoder.text_projection.weight.copy_(torch.eye(16))
        network = original_layout.network(kind, pipeline)
        others = original_layout.vae(kind, pipeline) | original_layout.text_encoders(kind, pipeline)
        save_file(network | others, place / "whole.safetensors")
        save_file({k.removeprefix(original_layout.UNET): v for k, v in network.items()}, place / "bare.safetensors")
        made[kind] = Tuned(kind, place / "original", pipeline, place / "whole.safetensors", place / "bare.safetensors")
    return made


@pytest.fixture(params=KINDS)
def tuned(request: pytest.FixtureRequest, all_tuned: dict[str, Tuned]) -> Tuned:
    return all_tuned[request.param]


def require_equal(found: nn.Module, expected: nn.Module) -> None:
    wanted = dict(expected.named_parameters())
    assert dict(found.named_parameters()).keys() == wanted.keys()
    for name, weight in found.named_parameters():
        assert torch.equal(weight, wanted[name]), name


def test_the_network_is_the_one_of_the_file(tuned: Tuned) -> None:
    for file in (tuned.whole, tuned.bare):
        require_equal(tuned.adapter(file).load_network(), getattr(tuned.pipeline, tuned.component))


def test_the_vae_and_the_text_encoders_inside_the_file_are_used(tuned: Tuned) -> None:
    adapter = tuned.adapter(tuned.whole)
    require_equal(adapter.load_vae(), tuned.pipeline.vae)
    pipeline = adapter.load_pipeline(**{tuned.component: None})
    for name in tuned.encoders:
        require_equal(getattr(pipeline, name), getattr(tuned.pipeline, name))
    ours = adapter.encode(pipeline, PROMPTS).tensors
    expected = adapter.encode(tuned.pipeline, PROMPTS).tensors
    for name, value in ours.items():  # equal weights at other addresses: kernels choose by alignment
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def test_what_the_file_lacks_comes_from_the_folder(tuned: Tuned) -> None:
    adapter = tuned.adapter(tuned.bare)
    original = type(tuned.pipeline).from_pretrained(tuned.folder)
    require_equal(adapter.load_vae(), original.vae)
    pipeline = adapter.load_pipeline()
    require_equal(getattr(pipeline, tuned.component), getattr(tuned.pipeline, tuned.component))
    for name in tuned.encoders:
        require_equal(getattr(pipeline, name), getattr(original, name))


def test_the_export_holds_everything_that_was_inside(tuned: Tuned, tmp_path: Path) -> None:
    adapter = tuned.adapter(tuned.whole)
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=(1.0, 0.5))
    student = type(tuned.pipeline).from_pretrained(done.folder, **adapter.load_kwargs())
    for name in (tuned.component, "vae", *tuned.encoders):
        require_equal(getattr(student, name), getattr(tuned.pipeline, name))
    assert str(tuned.folder.parent) not in (done.folder / "fewstep.json").read_text()
    assert create_model_adapter(done.folder, adapter.config, as_teacher=False).config.components is None


def test_a_lora_is_merged_into_one_file(all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    tuned = all_tuned["sdxl"]
    own = lora_files.factors(tuned.pipeline.unet, lora_files.layers_of(tuned.pipeline.unet, ["to_q"]))
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {"unet": own})
    network = tuned.adapter(tuned.whole, lora=(LoraSource(path=str(path)),)).load_network()
    weights = dict(tuned.pipeline.unet.named_parameters())
    for layer, pair in own.items():
        expected = lora_files.added(weights[f"{layer}.weight"], pair, 1.0)
        torch.testing.assert_close(dict(network.named_parameters())[f"{layer}.weight"], expected)


def test_half_precision_files_are_loaded_in_the_precision_asked_for(
    all_tuned: dict[str, Tuned], tmp_path: Path
) -> None:
    tuned = all_tuned["sd15"]
    halved = {name: value.half() for name, value in load_file(tuned.whole).items()}
    save_file(halved, tmp_path / "half.safetensors")
    network = tuned.adapter(tmp_path / "half.safetensors").load_network()
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_embeddings_follow_the_text_encoders_inside(all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    tuned = all_tuned["sd15"]

    def key(file: Path) -> str:
        return cache_key(tuned.adapter(file), ["a red cat"], dtype=torch.float32)

    tensors = load_file(tuned.whole)
    for name, changed in (("encoder", "cond_stage_model."), ("network", "model.")):
        other = {key: value * 2 if key.startswith(changed) else value for key, value in tensors.items()}
        save_file(other, tmp_path / f"{name}.safetensors")
    assert key(tmp_path / "network.safetensors") == key(tuned.whole)
    assert len({key(tuned.whole), key(tuned.bare), key(tmp_path / "encoder.safetensors")}) == 3
    assert key(tuned.bare) == cache_key(create_model_adapter(tuned.folder), ["a red cat"], dtype=torch.float32)


# What is refused.


def test_a_file_alone_asks_for_its_components(all_tuned: dict[str, Tuned]) -> None:
    with pytest.raises(ConfigError, match=r"whole.safetensors is one file of weights.* set backbone.components to"):
        create_model_adapter(all_tuned["sdxl"].whole)


def test_components_beside_a_folder_are_refused(all_tuned: dict[str, Tuned]) -> None:
    with pytest.raises(ConfigError, match=r"which is no single file of weights .* leave backbone.components out"):
        all_tuned["sdxl"].adapter(all_tuned["sdxl"].folder)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_a_pickle_is_refused_unopened(name: str, all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(ConfigError, match=r"is a pickle, which can run code .* convert it to safetensors"):
        all_tuned["sd15"].adapter(tmp_path / name)


def test_a_missing_file_is_named(all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no file .*/model.safetensors; check the path"):
        all_tuned["sd15"].adapter(tmp_path / "model.safetensors")


def test_a_name_that_tells_a_distilled_model_is_refused(all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    (tmp_path / "sdxl-turbo.safetensors").write_bytes(all_tuned["sdxl"].whole.read_bytes())
    with pytest.raises(ConfigError, match="it has few steps left to save"):
        all_tuned["sdxl"].adapter(tmp_path / "sdxl-turbo.safetensors")


@pytest.mark.parametrize(("kind", "other"), [(a, b) for a in KINDS for b in KINDS if a != b])
def test_a_file_of_another_model_is_refused(kind: str, other: str, all_tuned: dict[str, Tuned]) -> None:
    tuned = all_tuned[kind]
    with pytest.raises(CheckpointError, match=r"Set backbone.components to the model that the file was made from"):
        tuned.adapter(all_tuned[other].whole).load_network()


@pytest.mark.parametrize("change", ["less", "more", "other shape"])
def test_a_network_that_is_not_whole_or_not_used_whole_is_refused(change: str, tuned: Tuned, tmp_path: Path) -> None:
    tensors = load_file(tuned.bare)
    name = next(name for name in tensors if name.endswith("bias"))
    if change == "less":
        del tensors[name]
    elif change == "more":
        tensors["scaled_fp8"] = torch.ones(2)
    else:
        tensors[name] = torch.ones(3)
    save_file(tensors, tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointError, match=r"Set backbone.components to the model that the file was made from"):
        tuned.adapter(tmp_path / "changed.safetensors").load_network()


@pytest.mark.parametrize(
    "prefixes",
    [("model.",), ("first_stage_model.", "vae."), ("cond_stage_model.", "conditioner.", "text_encoders.")],
    ids=["network", "vae", "text encoders"],
)
def test_whole_numbers_are_no_weights(prefixes: tuple[str, ...], tuned: Tuned, tmp_path: Path) -> None:
    tensors = load_file(tuned.whole)
    own = [name for name in tensors if name.startswith(prefixes) and not name.endswith("position_ids")]
    changed = {**tensors, **{name: (100 * tensors[name]).to(torch.int64) for name in own}}
    save_file(changed, tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointError, match=r"is stored as torch.int64, not as floating-point numbers"):
        tuned.adapter(tmp_path / "changed.safetensors").load_pipeline()


def test_a_text_encoder_that_is_not_whole_is_refused(tuned: Tuned, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = load_file(tuned.whole)
    last = [name for name in tensors if name.startswith(("cond_stage", "conditioner", "text_encoders"))][-1]
    del tensors[last]
    save_file(tensors, tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointError, match="text_encoder"):
        tuned.adapter(tmp_path / "changed.safetensors").load_pipeline(**{tuned.component: None})


@pytest.mark.parametrize("content", [b"", b"\x80\x04 pickled", b"\xff" * 64])
def test_a_damaged_file_is_refused(content: bytes, all_tuned: dict[str, Tuned], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read .* Get the file again"):
        all_tuned["sd15"].adapter(tmp_path / "model.safetensors").require_usable()


def test_families_without_such_files_say_so(tmp_path: Path) -> None:
    FAMILIES["pixart"].build().save_pretrained(tmp_path / "teacher")
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    fields = {"kind": "pixart", "model": str(tmp_path / "model.safetensors"), "components": str(tmp_path / "teacher")}
    config = adapter_class("pixart").config_class(**fields, height=16, width=16)
    with pytest.raises(ConfigError, match="the backbone pixart reads no files in an original layout"):
        create_model_adapter(config.model, config)


# In a recipe.


def test_both_paths_are_relative_to_the_recipe_and_part_of_the_run(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: sdxl\nbackbone: {model: mine.safetensors, components: ./base}\n")
    config = load_recipe(recipe).config
    assert config.backbone.model == str(tmp_path / "mine.safetensors")
    assert config.backbone.components == str(tmp_path / "base")
    assert config_hash(config) != config_hash(load_recipe("sdxl").config)
    assert "components" not in identity(load_recipe("sdxl").config)["backbone"]
