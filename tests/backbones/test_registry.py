"""Which adapter serves which checkpoint, and what is said when none does."""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fewstep.backbones import BackboneConfig, adapter_class, backbone_kinds, create_model_adapter
from fewstep.backbones.refused import other_medium
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.backbones.source import loading
from fewstep.errors import CheckpointError, ConfigError
from fewstep.sampling import load_model
from tests.backbones import tiny


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("original") / "teacher")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A pipeline folder that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "teacher"))


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_kind_names_its_adapter() -> None:
    assert adapter_class("sd3") is SD3Adapter


def test_unknown_kind_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.kind is 'sd33'.*the nearest are sd3"):
        adapter_class("sd33")


def test_adapter_follows_from_the_pipeline_class(original: Path) -> None:
    adapter = create_model_adapter(original)
    assert isinstance(adapter, SD3Adapter)


def test_size_without_a_config_is_the_pipelines_own_default(original: Path) -> None:
    config = create_model_adapter(original).config
    assert (config.height, config.width) == (16, 16)  # sample_size 8, a VAE of factor 2


def test_making_an_adapter_reads_no_weights(folder: Path) -> None:
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert create_model_adapter(folder).latent_shape(16, 16) == (4, 8, 8)


def test_folder_decides_and_the_config_says_how(original: Path) -> None:
    config = SD3Adapter.config_class(model="somewhere/else", height=24, width=12, max_sequence_length=7)
    adapter = create_model_adapter(original, config)
    assert adapter.config == config.model_copy(update={"model": str(original)})


def test_config_without_anything_comes_from_the_folders_facts(folder: Path) -> None:
    facts = {"role": "teacher", "backbone": {"kind": "sd3", "height": 24, "width": 12, "max_sequence_length": 3}}
    (folder / "fewstep.json").write_text(json.dumps(facts))
    expected = SD3Adapter.config_class(model=str(folder), height=24, width=12, max_sequence_length=3)
    assert create_model_adapter(folder).config == expected


def test_short_form_of_the_facts_reads_the_same(folder: Path) -> None:
    facts = {"role": "teacher", "backbone": "sd3", "height": 24, "width": 12, "max_sequence_length": 3, "steps": 50}
    (folder / "fewstep.json").write_text(json.dumps(facts))
    expected = SD3Adapter.config_class(model=str(folder), height=24, width=12, max_sequence_length=3)
    assert create_model_adapter(folder).config == expected


def test_config_that_contradicts_the_facts_is_refused(folder: Path) -> None:
    (folder / "fewstep.json").write_text('{"role": "teacher", "backbone": {"kind": "sd3", "max_sequence_length": 1}}')
    with pytest.raises(
        ConfigError, match=r"max_sequence_length is 256, but .* was made with 1 .* Set backbone\.max_seq"
    ):
        create_model_adapter(folder, SD3Adapter.config_class(model=str(folder), height=16, width=16))


def test_unknown_field_in_the_facts_is_refused(folder: Path) -> None:
    (folder / "fewstep.json").write_text('{"role": "teacher", "backbone": {"kind": "sd3", "heigth": 16}}')
    with pytest.raises(ConfigError, match=r"fewstep\.json of .* sets backbone\.heigth to 16"):
        create_model_adapter(folder)


def test_damaged_facts_are_refused(folder: Path) -> None:
    (folder / "fewstep.json").write_text('{"role": "tea')
    with pytest.raises(CheckpointError, match=r"fewstep\.json is damaged or was written by something else"):
        create_model_adapter(folder)


def test_pipeline_of_another_class_than_the_kind_drives_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", lambda index: index.update(_class_name="FluxPipeline"))
    config = SD3Adapter.config_class(model=str(folder), height=16, width=16, allow_distilled=True)
    with pytest.raises(
        ConfigError, match=r"is a FluxPipeline, but backbone.kind=sd3 drives a StableDiffusion3Pipeline"
    ):
        create_model_adapter(folder, config)


def test_pipeline_that_no_backbone_drives_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", lambda index: index.update(_class_name="LuminaPipeline"))
    with pytest.raises(ConfigError, match=r"is a LuminaPipeline, for which there is no backbone; there are: .*sd3 \("):
        create_model_adapter(folder)


@pytest.mark.parametrize(
    ("pipeline", "medium"),
    [
        ("WanImageToVideoPipeline", "videos"),
        ("HunyuanVideoPipeline", "videos"),
        ("CogVideoXImageToVideoPipeline", "videos"),
        ("LTXPipeline", "videos"),
        ("MochiPipeline", "videos"),
        ("AnimateDiffSDXLPipeline", "videos"),
        ("StableVideoDiffusionPipeline", "videos"),
        ("SanaVideoPipeline", "videos"),
        ("Kandinsky5T2VPipeline", "videos"),
        ("CosmosTextToWorldPipeline", "videos"),
        ("ShapEPipeline", "3-D objects"),
        ("StableDiffusionLDM3DPipeline", "3-D objects"),
    ],
)
def test_video_and_3d_pipelines_are_refused_with_the_reason(folder: Path, pipeline: str, medium: str) -> None:
    edit(folder / "model_index.json", lambda index: index.update(_class_name=pipeline))
    with pytest.raises(ConfigError, match=rf"is a {pipeline}: it makes {medium}.* `fewstep backbones` lists"):
        create_model_adapter(folder)
    with pytest.raises(ConfigError, match=rf"is a {pipeline}: it makes {medium}"):
        create_model_adapter(
            folder, SD3Adapter.config_class(model=str(folder), height=16, width=16, allow_distilled=True)
        )


@pytest.mark.parametrize(
    "pipeline",
    [
        *("StableDiffusion3Pipeline", "FluxPipeline", "LongCatImagePipeline", "PixArtSigmaPipeline", "SanaPipeline"),
        *("StableDiffusionPipeline", "StableDiffusionXLPipeline", "ZImagePipeline", "HunyuanDiTPipeline"),
        *(
            "WanPipeline",
            "CogVideoXPipeline",
            "HunyuanImagePipeline",
            "Kandinsky5T2IPipeline",
            "Cosmos2TextToImagePipeline",
            "LuminaPipeline",
        ),
    ],
)
def test_pipelines_that_draw_pictures_are_of_no_other_medium(pipeline: str) -> None:
    assert other_medium(pipeline) is None


def test_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no model_index\.json, so it is not a diffusers pipeline"):
        create_model_adapter(tmp_path)


def test_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is not a folder\. Give a diffusers folder"):
        create_model_adapter(tmp_path / "nowhere")


def test_repository_that_cannot_be_reached_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="somebody/model is not a local folder, not in the download cache, and the"):
        create_model_adapter("somebody/model")


def test_name_that_can_be_no_repository_is_refused() -> None:
    with pytest.raises(ConfigError, match="some body is neither a local folder nor a Hugging Face repository"):
        create_model_adapter("some body")


def test_unknown_embedded_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewstep:letters is not a model inside fewstep; inside is fewstep:digits"):
        create_model_adapter("fewstep:letters")


def test_missing_component_configuration_is_refused(folder: Path) -> None:
    (folder / "transformer" / "config.json").unlink()
    with pytest.raises(
        ConfigError, match="names a SD3Transformer2DModel as its transformer but holds no configuration"
    ):
        create_model_adapter(folder)


def test_damaged_json_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(CheckpointError, match=r"model_index\.json cannot be used: it is not valid JSON"):
        create_model_adapter(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 10**30}, r"steps is 10+.*less than or equal to 1000"),
        ({"steps": 0}, "steps is 0"),
        ({"sigmas": [1.0, math.nan]}, r"sigmas\.1 is nan"),
        ({"sigmas": [1.5]}, r"sigmas\.0 is 1\.5"),
        ({"sigmas": []}, r"sigmas is \[\]"),
        ({"levels": "x"}, "levels is 'x'"),
        ({"guidance_scale": math.inf}, "guidance_scale is inf"),
        ({"role": 3}, "role is 3"),
    ],
)
def test_facts_have_bounds(folder: Path, change: dict[str, Any], told: str) -> None:
    facts = {"role": "teacher", "backbone": {"kind": "sd3"}, **change}
    (folder / "fewstep.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=rf"fewstep\.json is damaged or was written by something else: {told}"):
        create_model_adapter(folder)


def hub_error(kind: str) -> Exception:
    """An error of huggingface_hub, without the server's answer that it usually carries."""
    from huggingface_hub import errors

    refused = getattr(errors, kind)
    error: Exception = refused.__new__(refused)
    return error


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "GatedRepoError",
            "somebody/model is gated: accept its licence at https://huggingface.co/somebody/model and set",
        ),
        ("RepositoryNotFoundError", "somebody/model is neither a local folder nor a Hugging Face repository"),
        ("RevisionNotFoundError", "somebody/model has no revision 'v9'"),
        ("HfHubHTTPError", "the Hugging Face hub cannot be reached"),
    ],
)
def test_hubs_answer_becomes_a_sentence(kind: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*arguments: object, **options: object) -> str:
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ConfigError, match=sentence):
        create_model_adapter("somebody/model", SD3Adapter.config_class(model="somebody/model", revision="v9"))


@pytest.mark.parametrize("status", [401, 403])
def test_token_that_the_hub_refuses_is_told(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*arguments: object, **options: object) -> str:
        error: Any = hub_error("HfHubHTTPError")
        error.response = SimpleNamespace(status_code=status)
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    told = rf"hub refuses your token for somebody/model \(HTTP {status}\): set HF_TOKEN to a valid token"
    with pytest.raises(ConfigError, match=told):
        create_model_adapter("somebody/model")


def test_repository_is_read_from_the_download_cache(
    original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hub's own cache layout, offline."""
    repository, commit = tmp_path / "models--somebody--model", "0123456789" * 4
    shutil.copytree(original, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model("somebody/model", "cpu")
    assert model.adapter.config == SD3Adapter.config_class(model="somebody/model", height=16, width=16)
    assert model.latents(["a cat"], [0], steps=1, guidance_scale=1.0).shape == (1, 4, 8, 8)


def test_truncated_weights_are_refused(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"The weights .*transformer.* cannot be read .*Get the model again"):
        create_model_adapter(folder).load_network()


def test_component_that_needs_torchvision_is_told_with_what_to_do(folder: Path) -> None:
    """A real one: the processor of Qwen2-VL has a part for videos that torchvision reads."""
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    processor = ["transformers", "Qwen2VLProcessor"]
    edit(folder / "model_index.json", lambda index: index.update(feature_extractor=processor))
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "config.json").write_text('{"model_type": "qwen2_vl"}')
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        (folder / "feature_extractor" / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"A component of the pipeline .* needs torchvision, which is not installed"):
        create_model_adapter(folder).load_pipeline()


def test_package_that_is_missing_is_named() -> None:
    told = pytest.raises(ConfigError, match=r"A component of the vae of m needs sentencepiece, which is not installed")
    with told, loading("m", None, "the vae of m"):
        raise ImportError("GemmaTokenizer requires the sentencepiece library but it was not found.")


def test_truncated_text_encoder_is_refused(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"The weights .*text_encoder.* cannot be read .*Get the model again"):
        create_model_adapter(folder).load_pipeline()


def test_weights_that_lack_a_tensor_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["proj_out.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights of the transformer of .* first proj_out\.bias"):
        create_model_adapter(folder).load_network()


ADAPTER_SOURCE = """
from fewstep.backbones.sd3 import SD3Adapter
from typing import Literal

class Config(SD3Adapter.config_class):
    kind: Literal["outside"] = "outside"
    sharpness: int = 3

class Adapter(SD3Adapter):
    kind = "outside"
    config_class = Config
    pipeline_class = "OutsidePipeline"

class WithoutAConfig(SD3Adapter):
    kind = "outside"
    pipeline_class = "OutsidePipeline"

NOT_AN_ADAPTER = 3
"""


Install = Callable[[str, str, Mapping[str, str]], Path]


def add(install: Install, entry_point: str, *, name: str = "outside-backbone") -> None:
    module = name.replace("-", "_")
    install(name, f"[fewstep.backbones]\n{entry_point}\n", {f"{module}.py": ADAPTER_SOURCE})


def test_installed_package_adds_a_kind(install: Install) -> None:
    add(install, "outside = outside_backbone:Adapter")
    assert "outside" in backbone_kinds()
    assert adapter_class("outside").config_class(kind="outside", model="m").model_dump()["sharpness"] == 3


def test_installed_package_serves_its_pipeline_class(install: Install, folder: Path) -> None:
    add(install, "outside = outside_backbone:Adapter")
    edit(folder / "model_index.json", lambda index: index.update(_class_name="OutsidePipeline"))
    assert type(create_model_adapter(folder)).__module__ == "outside_backbone"


@pytest.mark.parametrize("name", ["NOT_AN_ADAPTER", "WithoutAConfig"])
def test_package_that_registers_something_else_is_refused(install: Install, name: str) -> None:
    add(install, f"outside = outside_backbone:{name}")
    with pytest.raises(
        ConfigError, match=r"package outside-backbone registers .* that is not a ModelAdapter whose kind"
    ):
        adapter_class("outside")


BROKEN = "broken = module_that_is_gone:Adapter"
SENTENCE = r"broken of the package broken-backbone cannot be imported \(ModuleNotFoundError: .*\)\. Repair or uninstall"


def test_package_that_cannot_be_imported_is_refused(install: Install) -> None:
    add(install, BROKEN, name="broken-backbone")
    with pytest.raises(ConfigError, match=SENTENCE):
        adapter_class("broken")


def test_package_that_cannot_be_imported_stops_nobody_who_does_not_need_it(install: Install, folder: Path) -> None:
    add(install, BROKEN, name="broken-backbone")
    add(install, "outside = outside_backbone:Adapter")
    assert type(create_model_adapter(folder)) is SD3Adapter
    edit(folder / "model_index.json", lambda index: index.update(_class_name="OutsidePipeline"))
    assert type(create_model_adapter(folder)).__module__ == "outside_backbone"


def test_package_that_cannot_be_imported_is_told_where_no_other_serves(install: Install, folder: Path) -> None:
    add(install, BROKEN, name="broken-backbone")
    edit(folder / "model_index.json", lambda index: index.update(_class_name="OutsidePipeline"))
    with pytest.raises(ConfigError, match=rf"is a OutsidePipeline, for which there is no backbone.*{SENTENCE}"):
        create_model_adapter(folder)


@pytest.mark.parametrize(
    ("kind", "owners"), [("sd3", "fewstep, one-backbone"), ("outside", "o.*-backbone, o.*-backbone")]
)
def test_kind_of_two_packages_is_refused(install: Install, kind: str, owners: str) -> None:
    add(install, f"{kind} = one_backbone:Adapter", name="one-backbone")
    add(install, "outside = other_backbone:Adapter", name="other-backbone")
    add(install, "outside = outside_backbone:Adapter")
    with pytest.raises(
        ConfigError, match=rf"backbone {kind} is of more than one installed package: .*{owners}\. Uninst"
    ):
        adapter_class(kind)


def test_family_fields_are_not_accepted_by_the_base_config() -> None:
    assert "max_sequence_length" not in BackboneConfig.model_fields


def test_importing_the_adapters_loads_no_diffusers() -> None:
    code = (
        "import sys, fewstep.backbones.sd3, fewstep.backbones.registry\n"
        "sys.exit(any(name.split('.')[0] in ('diffusers', 'transformers', 'huggingface_hub') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
