"""Finding a checkpoint, refusing what should not be read, and saying what to do; all without a network."""

import json
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.reading import RECORD_FILE, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file, has_file

ONE = {"weight": torch.tensor([1.0])}
TWO = {"weight": torch.tensor([2.0])}


def source(name: str | Path, **settings: bool) -> Source:
    return Source("clipscore", str(name), **settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put_in_cache(cache: Path, repository: str, commit: str = "a" * 40, branch: str = "main") -> Path:
    """The snapshot folder of a repository, as a download leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / branch).write_text(commit, encoding="utf-8")
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot


class Bomb:
    """What an attacker would put into a pickle: reading it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_safetensors_are_read_even_where_a_pickle_is_allowed(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    torch.save(TWO, tmp_path / "pytorch_model.bin")
    assert read_tensors(source(tmp_path, allow_pickle=True))["weight"].item() == 1


def test_the_only_safetensors_of_a_folder_is_its_weights_whatever_its_name(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "something.safetensors")
    torch.save(TWO, tmp_path / "pytorch_model.bin")
    check_source(source(tmp_path))
    assert read_tensors(source(tmp_path))["weight"].item() == 1


def test_a_file_can_be_named_instead_of_a_folder(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "any.safetensors")
    save_file(TWO, tmp_path / "other.safetensors")
    assert read_tensors(source(tmp_path / "other.safetensors"))["weight"].item() == 2


def test_a_name_of_its_own_goes_before_the_usual_one(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "own.safetensors")
    save_file(TWO, tmp_path / "model.safetensors")
    assert read_tensors(source(tmp_path), weights=["own.safetensors"])["weight"].item() == 1


def test_shards_are_read_together(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "model-2.safetensors")
    table = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table), encoding="utf-8")
    check_source(source(tmp_path))
    assert sorted(read_tensors(source(tmp_path))) == ["a", "b"]


def test_a_missing_shard_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    table = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"clipscore needs model-1\.safetensors, which .* does not have"):
        check_source(source(tmp_path))


def test_only_the_wanted_tensors_are_read(tmp_path: Path) -> None:
    save_file({"vision.a": torch.zeros(1), "text.a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_tensors(source(tmp_path), keep=lambda name: name.startswith("vision."))) == ["vision.a"]


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / "pytorch_model.bin")
    command = rf"`fewstep evaluate convert clipscore {tmp_path} --output FOLDER --allow-pickle`"
    with pytest.raises(ConfigError, match=command):
        check_source(source(tmp_path))
    with pytest.raises(ConfigError, match=command):
        read_tensors(source(tmp_path))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_an_allowed_pickle_of_tensors_is_read(tmp_path: Path, wrapper: str | None) -> None:
    torch.save(TWO if wrapper is None else {"epoch": 3, wrapper: TWO}, tmp_path / "pytorch_model.bin")
    check_source(source(tmp_path, allow_pickle=True))
    assert read_tensors(source(tmp_path, allow_pickle=True))["weight"].item() == 2


def test_code_in_an_allowed_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds more than tensors.*Nothing in it was run"):
        read_tensors(source(tmp_path, allow_pickle=True))
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is not a table of tensors by name"):
        read_tensors(source(tmp_path, allow_pickle=True))


def test_a_damaged_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read .*Get the checkpoint again"):
        read_tensors(source(tmp_path))


def test_a_folder_without_weights_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clipscore needs model\.safetensors, config\.json, which .*--set clipscore"):
        check_source(source(tmp_path), others=["config.json"])


def test_other_names_that_would_do_are_mentioned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clipscore needs model\.safetensors \(or HPS\.pt\), which"):
        check_source(source(tmp_path), weights=["HPS.pt"])


@pytest.mark.parametrize("name", ["./absent", "/absent/folder", "~/absent", "a/b/c"])
def test_a_local_place_that_does_not_exist_is_no_repository(name: str) -> None:
    with pytest.raises(ConfigError, match=r"clipscore reads its checkpoint from .*, which does not exist"):
        check_source(source(name))


def test_a_repository_that_was_never_downloaded_is_one_sentence_with_the_command(cache: Path) -> None:
    command = r"`HF_HUB_OFFLINE=0 hf download openai/clip model\.safetensors config\.json --revision v2`"
    with pytest.raises(ConfigError, match=f"HF_HUB_OFFLINE is set: with a network run {command}"):
        check_source(Source("clipscore", "openai/clip", "v2"), others=["config.json"])


def test_a_downloaded_repository_is_found_without_a_network(cache: Path) -> None:
    snapshot = put_in_cache(cache, "openai/clip")
    save_file(ONE, snapshot / "model.safetensors")
    check_source(source("openai/clip"))
    assert read_tensors(source("openai/clip"))["weight"].item() == 1


def test_another_revision_than_the_downloaded_one_is_missing(cache: Path) -> None:
    save_file(ONE, put_in_cache(cache, "openai/clip") / "model.safetensors")
    with pytest.raises(ConfigError, match="--revision v2"):
        check_source(Source("clipscore", "openai/clip", "v2"))


def test_a_commit_can_be_named_as_the_revision(cache: Path) -> None:
    commit = "b" * 40
    save_file(TWO, put_in_cache(cache, "openai/clip", commit) / "model.safetensors")
    assert read_tensors(Source("clipscore", "openai/clip", commit))["weight"].item() == 2


def test_a_single_file_that_was_never_downloaded_is_named(cache: Path) -> None:
    put_in_cache(cache, "openai/clip")
    assert not has_file(source("openai/clip"), "tokenizer.json")
    with pytest.raises(ConfigError, match=r"hf download openai/clip tokenizer\.json`"):
        fetch_file(source("openai/clip"), "tokenizer.json")


def test_a_name_that_no_repository_can_have_is_refused(cache: Path) -> None:
    with pytest.raises(ConfigError, match="neither a local folder nor a Hugging Face repository"):
        check_source(source("open ai/cl ip"))


def test_what_was_converted_for_one_metric_is_not_read_by_another(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    (tmp_path / RECORD_FILE).write_text('{"metric": "hpsv2"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="was converted for hpsv2, so clipscore cannot read it"):
        check_source(source(tmp_path))


@pytest.mark.parametrize(
    ("text", "complaint"), [("{", "it is not valid JSON"), ("[]", "the whole is "), ("[" * 100_000, "it is not valid")]
)
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"config\.json cannot be used: {complaint}.*Get the checkpoint again"):
        read_json(tmp_path / "config.json")


def test_an_index_without_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="weight_map is"):
        read_tensors(source(tmp_path))


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path: Path, shard: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="as a file beside it"):
        read_tensors(source(tmp_path))
