"""Weights as people keep them: loaded, copied and fetched by one choice, and named when they are not whole."""

import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.backbones import create_model_adapter
from fewstep.backbones.component_files import fetch_parts, list_files, missing_parts
from fewstep.backbones.configurations import pipeline_parts
from fewstep.backbones.source import open_checkpoint
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError
from fewstep.export import export_student
from fewstep.sampling import load_model
from tests.backbones import tiny_vp

UNET = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "model"
    tiny_vp.sd_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half precision alone; the text encoder in shards."""
    folder = tmp_path_factory.mktemp("half") / "model"
    pipeline = tiny_vp.sd_pipeline().to(torch.float16)
    pipeline.save_pretrained(folder, variant="fp16")
    (folder / "text_encoder" / "model.fp16.safetensors").unlink()
    pipeline.text_encoder.save_pretrained(folder / "text_encoder", variant="fp16", max_shard_size="20KB")
    return folder


@pytest.fixture
def spoiled(full: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(full, tmp_path / "model"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "safetensors" in path.name or path.suffix == ".bin")


def test_half_precision_alone_is_loaded_shards_too(full: Path, half: Path) -> None:
    assert "model.safetensors.index.fp16.json" in names(half / "text_encoder")
    drawn = [load_model(folder, "cpu").latents(["a cat"], [0], steps=1, guidance_scale=1.0) for folder in (full, half)]
    # weights of half precision: 11 bits, enlarged by an epsilon network's first step (latents reach 60)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1.0)
    assert not torch.equal(drawn[0], drawn[1])


def test_export_copies_half_precision_under_plain_names(half: Path, tmp_path: Path) -> None:
    adapter = create_model_adapter(half)
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=[1.0, 0.5]).folder
    shards = [name for name in names(done / "text_encoder") if not name.endswith(".json")]
    assert len(shards) > 1
    assert not [name for name in names(done / "text_encoder") if "fp16" in name]
    index = json.loads((done / "text_encoder" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == shards
    assert names(done / "vae") == [f"{UNET}.safetensors"]
    from diffusers import DiffusionPipeline

    stock = DiffusionPipeline.from_pretrained(done, safety_checker=None).text_encoder.state_dict()
    ours = adapter.load_pipeline().text_encoder.state_dict()
    assert all(torch.equal(stock[key].float(), ours[key]) for key in ours)


def test_full_weights_win_and_are_copied_once(full: Path, half: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(full, tmp_path / "both"))
    for name in ("unet", "vae", "text_encoder"):
        for path in (half / name).glob("*fp16*"):
            shutil.copy(path, both / name)
    (both / "unet" / f"{UNET}.non_ema.bin").write_bytes(b"never read")
    adapter = create_model_adapter(both)
    drawn = adapter.load_network().state_dict()
    expected = create_model_adapter(full).load_network().state_dict()
    assert all(torch.equal(drawn[key], expected[key]) for key in expected)
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=[1.0, 0.5]).folder
    assert names(done / "text_encoder") == ["model.safetensors"]
    assert names(done / "vae") == names(done / "unet") == [f"{UNET}.safetensors"]


def test_pickles_alone_are_loaded_and_copied(full: Path, tmp_path: Path) -> None:
    tiny_vp.sd_pipeline().save_pretrained(tmp_path / "model", safe_serialization=False)
    adapter = create_model_adapter(tmp_path / "model")
    expected = create_model_adapter(full).load_vae().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in adapter.load_vae().state_dict().items())
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=[1.0, 0.5]).folder
    assert names(done / "vae") == [f"{UNET}.bin"]


def test_a_text_encoder_without_some_of_its_weights_is_refused(spoiled: Path) -> None:
    weights = spoiled / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    lost = next(name for name in tensors if "mlp.fc1.weight" in name)
    del tensors[lost]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 weights of the text_encoder of .* are missing, first .*mlp\.fc1\.weight"
    ):
        load_model(spoiled, "cpu")


class Trap:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_a_pickle_that_would_run_code_is_refused(spoiled: Path, tmp_path: Path, component: str) -> None:
    (weights,) = (spoiled / component).glob("*.safetensors")
    weights.unlink()
    name = "pytorch_model.bin" if component == "text_encoder" else f"{UNET}.bin"
    (spoiled / component / name).write_bytes(pickle.dumps({"weight": Trap(tmp_path / "ran")}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(spoiled, "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "The unet of .* has no weights"),
        ("text_encoder/model.safetensors", "The text_encoder of .* has no weights"),
        ("text_encoder/config.json", "The text_encoder of .* has no config.json"),
        ("tokenizer", "has no folder tokenizer, which its model_index.json names"),
        ("vae", "names a AutoencoderKL as its vae but holds no configuration"),
    ],
)
def test_check_names_what_the_index_names_and_the_folder_lacks(
    spoiled: Path, lost: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoiled / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert execute(["check", str(spoiled)]) == 2
    assert re.search(told, " ".join(capsys.readouterr().err.split()))


def test_check_names_everything_at_once(spoiled: Path) -> None:
    for path in (spoiled / "unet" / f"{UNET}.safetensors", spoiled / "text_encoder" / "model.safetensors"):
        path.unlink()
    assert len(missing_parts(open_checkpoint(str(spoiled)))) == 2


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_a_file_that_is_all_names_is_refused_before_it_is_loaded(spoiled: Path, component: str) -> None:
    (weights,) = (spoiled / component).glob("*.safetensors")
    names = {f"w{k}": {"dtype": "F32", "shape": [], "data_offsets": [4 * k, 4 * k + 4]} for k in range(40_000)}
    header = json.dumps(names).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * len(names)))
    with pytest.raises(CheckpointError, match=r"cannot be read \(40000 tensors, more than the 32768"):
        load_model(spoiled, "cpu")


def test_an_index_may_not_name_shards_elsewhere(half: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "model"))
    file = folder / "text_encoder" / "model.safetensors.index.fp16.json"
    index = json.loads(file.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../outside.safetensors")
    file.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lists \.\./\.\./outside\.safetensors, which is none of the shards"):
        load_model(folder, "cpu")


def test_the_same_choice_decides_the_download(full: Path, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository of many copies: what the hub is asked for."""
    published = [
        f"{folder.name}/{name}"
        for base in (full, half)
        for folder in base.iterdir()
        if folder.is_dir()
        for name in [path.name for path in folder.iterdir()]
    ]
    published += [
        "model_index.json",
        "v1-5-pruned.ckpt",
        "unet/diffusion_pytorch_model.non_ema.bin",
        "vae/flax_model.msgpack",
    ]
    asked: list[str] = []

    def snapshot(source: str, *, revision: str | None, allow_patterns: list[str] = asked, dry_run: bool = False) -> Any:
        if dry_run:
            return [SimpleNamespace(filename=name) for name in published]
        asked.extend(allow_patterns)
        return str(full)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    parts = pipeline_parts(open_checkpoint(str(full)).components["model_index"])
    fetch_parts(list_files("somebody/model", None), None, parts)
    weights = [name for name in asked if "safetensors" in name or name.endswith((".bin", ".msgpack", ".ckpt"))]
    assert sorted(weights) == [
        "text_encoder/model.safetensors", f"unet/{UNET}.safetensors", f"vae/{UNET}.safetensors"
    ]  # fmt: skip
    assert "tokenizer/tokenizer_config.json" in asked
