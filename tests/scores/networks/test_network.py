"""Networks whose checkpoints have transformers' format are loaded by transformers, from safetensors and whole."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.networks.clip import Clip
from tests.scores.tiny_clip import random_clip, write_clip

CPU = torch.device("cpu")


def loaded(place: str | Path) -> Clip:
    clip = Clip(Source("clipscore", str(place)))
    clip.check()
    clip.load(CPU)
    return clip


def test_shards_make_the_network_of_one_file(tmp_path: Path) -> None:
    model = write_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    weights = loaded(tmp_path).network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_downloaded_repository_is_loaded_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    model = write_clip(repository / "snapshots" / ("a" * 40))
    assert torch.equal(loaded("org/clip").network.logit_scale, model.logit_scale)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"visual_projection.weight": None}, "visual_projection.weight"),
        ({"extra.weight": torch.zeros(1)}, "extra.weight"),
        ({"logit_scale": torch.zeros(2)}, "logit_scale"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    change: dict[str, torch.Tensor | None], named: str, tmp_path: Path
) -> None:
    write_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors") | change
    kept = {name: value for name, value in weights.items() if value is not None}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"^1 weights of .* are missing, unknown or .* first {named}\."):
        loaded(tmp_path)


def test_the_counting_tensors_of_older_files_are_left_out(tmp_path: Path) -> None:
    write_clip(tmp_path)
    places = {f"{tower}_model.embeddings.position_ids": torch.arange(3)[None] for tower in ("text", "vision")}
    weights = load_file(tmp_path / "model.safetensors") | places
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert loaded(tmp_path).is_loaded


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    write_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"^The weights of .* cannot be read \(.*\)\. Get the checkpoint"):
        loaded(tmp_path)


def test_an_index_that_leads_out_of_its_folder_is_not_followed(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").rename(tmp_path / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(random_clip().state_dict(), "../other.safetensors")}
    (tmp_path / "clip" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="as a file beside it"):
        Clip(Source("clipscore", str(tmp_path / "clip"))).load(CPU)


def test_a_pickle_is_not_loaded_until_it_is_allowed(tmp_path: Path) -> None:
    model = write_clip(tmp_path, safe=False)
    with pytest.raises(ConfigError, match="is a pickle"):
        Clip(Source("clipscore", str(tmp_path))).load(CPU)
    allowed = Clip(Source("clipscore", str(tmp_path), allow_pickle=True))
    allowed.load(CPU)
    assert torch.equal(allowed.network.logit_scale, model.logit_scale)
