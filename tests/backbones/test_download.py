"""What is fetched of a repository, from a hub on this machine, and what is done with it when there is no hub."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.backbones import create_model_adapter
from fewstep.backbones.source import open_checkpoint
from fewstep.backbones.stock import load_stock
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import export_student
from tests.backbones import tiny_vp
from tests.backbones.local_hub import LocalHub, local_hub

MODEL = "somebody/model"


def save(pipeline: Any, folder: Path, *, shards: str = "", **options: Any) -> Path:
    pipeline.save_pretrained(folder, **options)
    if shards:
        for path in (folder / "text_encoder").glob("*model*"):
            path.unlink()
        pipeline.text_encoder.save_pretrained(folder / "text_encoder", max_shard_size=shards, **options)
    return folder


def everything(folder: Path) -> Path:
    """Full and half precision, pickles, weights without averaging, and the whole model once more as single files."""
    pipeline = tiny_vp.sd_pipeline()
    save(pipeline, folder, shards="20KB")
    save(pipeline, folder, safe_serialization=False)
    save(pipeline.to(torch.float16), folder, shards="20KB", variant="fp16")
    for name in ("v1-5-pruned.safetensors", "v1-5.ckpt", "unet/diffusion_pytorch_model.non_ema.safetensors"):
        (folder / name).write_bytes(b"never read")
    (folder / "vae" / "flax_model.msgpack").write_bytes(b"never read")
    return folder


def half(folder: Path) -> Path:
    return save(tiny_vp.sd_pipeline().to(torch.float16), folder, shards="20KB", variant="fp16")


PUBLISHED: dict[str, Callable[[Path], Path]] = {
    "everything": everything,
    "half precision alone, in shards": half,
    "pickles alone": lambda folder: save(tiny_vp.sd_pipeline(), folder, safe_serialization=False),
    "shards alone": lambda folder: save(tiny_vp.sd_pipeline(), folder, shards="20KB"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("published")
    return {name: make(place / str(number)) for number, (name, make) in enumerate(PUBLISHED.items())}


@pytest.fixture(params=PUBLISHED)
def hub(
    request: pytest.FixtureRequest, published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalHub]:
    with local_hub({MODEL: published[request.param]}, tmp_path / "hub", monkeypatch) as made:
        yield made


def exported(model: str, output: Path) -> dict[str, bytes]:
    """What a student made of a model has beside its own network, by name."""
    adapter = create_model_adapter(model)
    done = export_student(adapter, adapter.load_network(), output, levels=[1.0, 0.5]).folder
    found = (path for path in done.rglob("*") if path.is_file())
    return {
        str(path.relative_to(done)): path.read_bytes() for path in found if path.parent.name not in ("unet", done.name)
    }


def test_what_is_fetched_is_what_a_local_folder_exports(hub: LocalHub, tmp_path: Path) -> None:
    """Everything once, nothing in two precisions, and the same bytes."""
    local = exported(str(hub.folders[MODEL]), tmp_path / "local")
    assert exported(MODEL, tmp_path / "fetched") == local
    assert len(hub.sent) == len(set(hub.sent))
    copied = [name for name in local if name.endswith((".safetensors", ".bin"))]
    network = [name for name in hub.weights_sent() if name.startswith("unet/")]
    assert len(hub.weights_sent()) == len(copied) + len(network)
    assert not [name for name in hub.sent if "/" not in name and not name.endswith(".json")]


def test_what_was_fetched_is_used_when_there_is_no_hub(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = exported(MODEL, tmp_path / "online")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.sent.clear()
    assert exported(MODEL, tmp_path / "offline") == online
    assert execute(["check", MODEL]) == 0
    stock = load_stock(open_checkpoint(MODEL), dtype=torch.float32, lora=None, lora_scale=1.0)
    assert stock.unet is not None
    assert hub.sent == []


@pytest.fixture
def cache(published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download cache with one whole model, and no hub."""
    with local_hub({MODEL: published["shards alone"]}, tmp_path / "hub", monkeypatch):
        create_model_adapter(MODEL).load_pipeline()
    (snapshot,) = (tmp_path / "hub").glob("models--*/snapshots/*")
    return snapshot


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("unet/*.safetensors", "the Hugging Face hub cannot be reached|has no weights"),
        ("text_encoder/model-00001*", "the Hugging Face hub cannot be reached|lacks model-00001"),
        ("text_encoder/*.index.json", "the Hugging Face hub cannot be reached|lacks model.safetensors.index"),
        ("tokenizer/*", "has no folder tokenizer|the Hugging Face hub cannot be reached"),
        ("vae/config.json", "holds no configuration of it"),
        ("model_index.json", "not in the download cache, and the Hugging Face hub cannot be reached"),
    ],
)
def test_what_the_cache_lacks_is_told_when_there_is_no_hub(lost: str, told: str, cache: Path) -> None:
    for path in cache.glob(lost):
        path.unlink()
    with pytest.raises((CheckpointError, ConfigError), match=told):
        create_model_adapter(MODEL).load_pipeline()


@pytest.mark.parametrize(
    ("model", "revision", "told"),
    [
        ("somebody/else", None, "neither a local folder nor a Hugging Face repository"),
        (MODEL, "v9", "has no revision 'v9'"),
        (f"{MODEL}--x--y", None, "neither a local folder nor a Hugging Face repository"),
    ],
)
def test_what_the_hub_does_not_have_is_told(
    model: str,
    revision: str | None,
    told: str,
    published: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = local_hub({MODEL: published["shards alone"]}, tmp_path / "hub", monkeypatch)
    with served, pytest.raises(ConfigError, match=told):
        open_checkpoint(model, revision)


def test_a_hub_that_breaks_off_is_told(
    published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_hub({MODEL: published["shards alone"]}, tmp_path / "hub", monkeypatch) as hub:
        open_checkpoint(MODEL)
        hub.breaks_off = True
        with pytest.raises(ConfigError, match="the Hugging Face hub cannot be reached"):
            create_model_adapter("somebody/other")
        with pytest.raises(ConfigError, match="the Hugging Face hub cannot be reached"):
            create_model_adapter(MODEL).load_pipeline()


def test_a_repository_that_is_not_whole_is_told_before_anything_is_fetched(
    published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(published["shards alone"], tmp_path / "model"))
    next(folder.glob("text_encoder/model-00001*")).unlink()
    with local_hub({MODEL: folder}, tmp_path / "hub", monkeypatch) as hub:
        assert execute(["check", MODEL]) == 2
        with pytest.raises(CheckpointError, match="lacks model-00001-of-"):
            create_model_adapter(MODEL).load_pipeline()
    assert hub.weights_sent() == set()
