"""The embedding cache gives back what the pipeline's encoders say, computes it once, and notices damage."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.core.conditioning import Conditioning
from fewstep.data import building, embeddings, stored_prompt
from fewstep.data.embeddings import EmbeddingCache, cache_key, open_or_build
from fewstep.data.shards import open_shard
from fewstep.data.sizes import SizeEstimate, gib
from fewstep.errors import CheckpointError, ConfigError
from fewstep.seals import seal
from tests.backbones import tiny

PROMPTS = ("a cat", "a dog", "two cats", "a cat on a mat", "night")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(t5=False), tmp_path_factory.mktemp("teacher"))


def adapter_of(folder: Path, **settings: Any) -> ModelAdapter:
    config = SD3Adapter.config_class(model=str(folder), height=16, width=16, max_sequence_length=2).model_copy(
        update=settings
    )
    return create_model_adapter(folder, config)


def refuse_to_load(**components: Any) -> Any:
    raise AssertionError("the text encoders were loaded although the embeddings are there")


def two_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_prompts_per_shard", lambda padded_bytes: 2)


def shard_of(cache: EmbeddingCache, number: int) -> Path:
    return cache.folder / cache.shards[number]


@pytest.fixture(scope="module")
def built(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the prompts are embedded once, two to a shard; every test gets a copy that it may damage."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        two_per_shard(patch)
        open_or_build(folder, adapter_of(teacher), PROMPTS)
    return folder


@pytest.fixture
def cache(teacher: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingCache:
    two_per_shard(monkeypatch)
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return open_or_build(tmp_path, adapter_of(teacher), PROMPTS)


def assert_equal(one: Conditioning, other: Conditioning) -> None:
    assert one.tensors.keys() == other.tensors.keys()
    for name, value in one.tensors.items():
        assert torch.equal(value, other.tensors[name]), name


def test_a_batch_is_what_the_pipeline_encodes_in_the_order_asked(teacher: Path, cache: EmbeddingCache) -> None:
    adapter = adapter_of(teacher)
    pipeline = adapter.load_pipeline(transformer=None, vae=None)
    batch = cache.batch([4, 0, 3, 0])
    # one prompt at a time here, two in the cache: equal up to the order of float32 sums
    for row, index in enumerate([4, 0, 3, 0]):
        alone = adapter.encode(pipeline, [PROMPTS[index]])
        for name, value in alone.tensors.items():
            torch.testing.assert_close(batch.tensors[name][row : row + 1], value, rtol=1e-5, atol=1e-6)


def test_the_null_row_is_the_pipelines_unconditional_branch(teacher: Path, cache: EmbeddingCache) -> None:
    adapter = adapter_of(teacher)
    assert len(cache.null) == 1
    assert_equal(cache.null, adapter.encode_null(adapter.load_pipeline(transformer=None, vae=None)))


def test_the_cache_is_as_long_as_its_prompts(cache: EmbeddingCache) -> None:
    assert len(cache) == len(PROMPTS)


def test_an_index_outside_the_cache_is_an_error(cache: EmbeddingCache) -> None:
    with pytest.raises(IndexError, match="prompt 5 of 5"):
        cache.batch([5])


def test_prompts_are_split_into_shards(cache: EmbeddingCache) -> None:
    names = sorted(path.name for path in cache.folder.iterdir())
    assert names == [".hashed.json", "index.json", "null.safetensors", "places.safetensors", *cache.shards]
    assert [len(open_shard(shard_of(cache, number))) for number in range(3)] == [2, 2, 1]


def test_the_second_time_the_text_encoders_are_not_loaded(teacher: Path, cache: EmbeddingCache) -> None:
    adapter = adapter_of(teacher)
    adapter.load_pipeline = refuse_to_load  # type: ignore[method-assign]
    again = open_or_build(cache.folder.parent, adapter, PROMPTS)
    assert_equal(again.batch(range(5)), cache.batch(range(5)))


def test_the_text_encoders_leave_memory(teacher: Path, tmp_path: Path) -> None:
    adapter = adapter_of(teacher)
    load, seen = adapter.load_pipeline, []

    def remember(**components: Any) -> Any:
        pipeline = load(**components)
        seen.extend(weakref.ref(encoder) for encoder in adapter.get_text_encoders(pipeline))
        return pipeline

    adapter.load_pipeline = remember  # type: ignore[method-assign]
    open_or_build(tmp_path, adapter, PROMPTS)
    gc.collect()
    assert len(seen) == 2
    assert [reference() for reference in seen] == [None, None]


def test_neither_the_network_nor_the_vae_is_loaded(teacher: Path, tmp_path: Path) -> None:
    adapter = adapter_of(teacher)
    load, asked = adapter.load_pipeline, []

    def remember(**components: Any) -> Any:
        asked.append(components)
        return load(**components)

    adapter.load_pipeline = remember  # type: ignore[method-assign]
    open_or_build(tmp_path, adapter, PROMPTS)
    assert asked == [{"transformer": None, "vae": None, "dtype": torch.float32}]


def test_embeddings_are_stored_in_the_dtype_asked_for(teacher: Path, tmp_path: Path) -> None:
    cache = open_or_build(tmp_path, adapter_of(teacher), PROMPTS, dtype=torch.bfloat16)
    assert {value.dtype for value in cache.batch([0]).tensors.values()} == {torch.bfloat16}


def test_progress_ends_at_the_number_of_prompts(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_PROMPTS_PER_CALL", 2)
    told: list[tuple[int, int]] = []
    open_or_build(tmp_path, adapter_of(teacher), PROMPTS, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def key(folder: Path, prompts: tuple[str, ...] = PROMPTS, dtype: torch.dtype = torch.float32, **settings: Any) -> str:
    return cache_key(adapter_of(folder, **settings), prompts, dtype=dtype)


def test_the_key_depends_on_the_prompts_and_their_order(teacher: Path) -> None:
    assert len({key(teacher), key(teacher, PROMPTS[::-1]), key(teacher, PROMPTS[:-1])}) == 3


def test_the_key_depends_on_the_dtype(teacher: Path) -> None:
    assert key(teacher) != key(teacher, dtype=torch.bfloat16)


def test_the_key_depends_on_the_settings_that_change_text(teacher: Path) -> None:
    assert key(teacher) != key(teacher, max_sequence_length=3)


def test_the_key_ignores_the_size_of_the_pictures(teacher: Path) -> None:
    assert key(teacher) == key(teacher, height=24)


def test_the_key_ignores_where_the_encoders_are(teacher: Path, tmp_path: Path) -> None:
    copied = tiny.save(tiny.sd3_pipeline(t5=False), tmp_path / "elsewhere")
    assert key(teacher) == key(copied)


def test_the_key_depends_on_the_content_of_the_encoders(teacher: Path, tmp_path: Path) -> None:
    pipeline = tiny.sd3_pipeline(t5=False)
    with torch.no_grad():
        next(iter(pipeline.text_encoder_2.parameters())).view(-1)[0] += 1
    assert key(teacher) != key(tiny.save(pipeline, tmp_path / "changed"))


def test_the_key_ignores_the_network(teacher: Path, tmp_path: Path) -> None:
    pipeline = tiny.sd3_pipeline(t5=False)
    with torch.no_grad():
        next(iter(pipeline.transformer.parameters())).view(-1)[0] += 1
    assert key(teacher) == key(tiny.save(pipeline, tmp_path / "changed"))


def test_a_truncated_shard_is_named_with_what_to_delete(teacher: Path, cache: EmbeddingCache) -> None:
    shard = shard_of(cache, 1)
    whole = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError) as caught:
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)
    assert str(caught.value) == (
        f"{shard} of the prompt-embedding cache is damaged (it holds 100 bytes instead of {whole}). "
        f"Delete {cache.folder}; it is computed again."
    )


def test_a_missing_shard_is_named(teacher: Path, cache: EmbeddingCache) -> None:
    (cache.folder / "null.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"null.safetensors of the prompt-embedding cache is damaged \(it is missing"
    ):
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)


def test_a_shard_of_the_right_size_that_is_no_safetensors_file_is_named(cache: EmbeddingCache) -> None:
    shard = shard_of(cache, 0)
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(CheckpointError, match=rf"{shard.name} of the prompt-embedding cache is damaged"):
        cache.batch([0])


def test_a_damaged_index_is_named(teacher: Path, cache: EmbeddingCache) -> None:
    (cache.folder / "index.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"index.json of the prompt-embedding cache is damaged \(it cannot be read"
    ):
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def moved_away(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("elsewhere")))


@pytest.mark.parametrize(
    ("damage", "reason"), [(altered, r"it was altered \(its SHA-256 differs\)"), (moved_away, "it is a symbolic link")]
)
@pytest.mark.parametrize("name", ["prompts", "null", "places"])
def test_a_file_of_the_right_size_with_other_content_is_named(
    name: str, damage: Callable[[Path], None], reason: str, teacher: Path, cache: EmbeddingCache
) -> None:
    file = min(cache.folder.glob(f"{name}*.safetensors"))
    damage(file)
    with pytest.raises(CheckpointError, match=rf"{file.name} of the prompt-embedding cache is damaged \({reason}"):
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda index: [], "it cannot be read: the whole is "),
        (lambda index: None, "it cannot be read: the whole is null"),
        (lambda index: {}, "it cannot be read: files is "),
        (lambda index: {**index, "files": {}}, "it does not list 'prompts-00000-"),
        (lambda index: {**index, "shards": ["../x"]}, "it does not list '../x'"),
        (lambda index: {**index, "shards": 3}, "it cannot be read: shards is 3"),
        (lambda index: {**index, "shards": []}, "it names files that are not there"),
        (lambda index: {**index, "shards": ["null.safetensors"]}, "its name is not the hash that the index has"),
        (lambda index: {**index, "shapes": {"x": [10**12]}}, "it cannot be read: shapes.x.0 is 1000000000000"),
        (lambda index: {**index, "shapes": {**index["shapes"], "more": [1]}}, "its shapes are .*, those of null"),
        (lambda index: {**index, "shapes": {name: [10**6, 8] for name in index["shapes"]}}, "its shapes are .*000"),
        (lambda index: {**index, "files": {**index["files"], "../x": {}}}, "it is not the name of a file in"),
    ],
)
def test_an_index_that_does_not_fit_its_folder_is_refused(
    change: Callable[[Any], Any], reason: str, teacher: Path, cache: EmbeddingCache
) -> None:
    file = cache.folder / "index.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(CheckpointError, match=rf"cache is damaged \(.*{reason}.*Delete {cache.folder}"):
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)


@pytest.mark.parametrize(
    "places", [{"x": torch.zeros(1)}, {"places": torch.zeros(5, 2)}, {"places": torch.zeros(4, 2)}]
)
def test_places_of_other_prompts_are_refused(
    places: dict[str, torch.Tensor], teacher: Path, cache: EmbeddingCache
) -> None:
    save_file(places, cache.folder / "places.safetensors")
    index = json.loads((cache.folder / "index.json").read_text())
    index["files"]["places.safetensors"] = seal(cache.folder / "places.safetensors").model_dump()
    (cache.folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="does not say where 5 prompts are"):
        open_or_build(cache.folder.parent, adapter_of(teacher), PROMPTS)


@pytest.mark.parametrize("change", [{":rows": None}, {"more": torch.zeros(2)}, {":prompts": torch.zeros(2)}])
def test_a_file_of_rows_that_lacks_a_part_is_named(
    change: dict[str, Any], tmp_path: Path, cache: EmbeddingCache
) -> None:
    tensors = {**load_file(shard_of(cache, 0)), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="it does not hold what a file of rows consists of"):
        open_shard(tmp_path / "x.safetensors")


class KilledError(RuntimeError):
    """Stands for a kill."""


def stop_after(calls: int, adapter: ModelAdapter, asked: list[tuple[str, ...]]) -> None:
    """Remember what is encoded, and stop instead of encoding once more than ``calls`` times."""
    encode = adapter.encode

    def encode_or_stop(pipeline: Any, prompts: Any) -> Conditioning:
        if len(asked) == calls:
            raise KilledError
        asked.append(tuple(prompts))
        return encode(pipeline, prompts)

    adapter.encode = encode_or_stop  # type: ignore[method-assign]


def stopped_after_one_shard(teacher: Path, folder: Path) -> Path:
    """A build of three shards that was stopped in the second; returns the finished one."""
    adapter = adapter_of(teacher)
    stop_after(2, adapter, [])  # the measured sample, one shard
    with pytest.raises(KilledError):
        open_or_build(folder, adapter, PROMPTS)
    (shard,) = folder.glob(".building-*/prompts-*")
    return shard


def test_a_stopped_build_goes_on_behind_its_finished_shards(
    teacher: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    shard = stopped_after_one_shard(teacher, tmp_path / "again")
    adapter, asked = adapter_of(teacher), list[tuple[str, ...]]()
    stop_after(100, adapter, asked)
    again = open_or_build(tmp_path / "again", adapter, PROMPTS)
    assert asked[1:3] == [PROMPTS[2:4], PROMPTS[4:]]  # the first is the measured sample
    assert again.shards[0] == shard.name
    assert again.shards == cache.shards
    assert_equal(again.batch(range(5)), cache.batch(range(5)))


def test_a_finished_shard_that_was_damaged_since_is_embedded_again(
    teacher: Path, tmp_path: Path, cache: EmbeddingCache, caplog: pytest.LogCaptureFixture
) -> None:
    shard = stopped_after_one_shard(teacher, tmp_path / "again")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    again = open_or_build(tmp_path / "again", adapter_of(teacher), PROMPTS)
    assert "was not written as a whole; its prompts are embedded again." in caplog.text
    assert_equal(again.batch(range(5)), cache.batch(range(5)))


def test_a_repeated_prompt_is_stored_once(teacher: Path, tmp_path: Path) -> None:
    cache = open_or_build(tmp_path, adapter_of(teacher), ["a cat", "a dog", "a cat"])
    assert (len(cache), len(open_shard(shard_of(cache, 0)))) == (3, 2)
    assert_equal(cache.batch([2]), cache.batch([0]))


def test_equal_embeddings_in_different_shards_are_stored_once(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_per_shard(monkeypatch)
    # CLIP reads both in lower case
    cache = open_or_build(tmp_path, adapter_of(teacher), ["a cat", "a dog", "A CAT", "A DOG"])
    assert [len(open_shard(shard_of(cache, number))) for number in range(2)] == [2, 0]
    assert_equal(cache.batch([2, 3]), cache.batch([0, 1]))


def test_zeros_behind_the_tokens_take_no_room_and_come_back(teacher: Path, cache: EmbeddingCache) -> None:
    # without a T5 one token of zeros stands for all of them
    row = open_shard(shard_of(cache, 0)).row(0)["prompt_embeds"]
    assert len(row) == cache.shapes["prompt_embeds"][0] - 1
    assert not cache.batch([0]).tensors["prompt_embeds"][0, len(row) :].any()


def test_what_the_disk_cannot_hold_is_refused_before_it_is_written(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "free_bytes", lambda folder: 100)
    told: list[SizeEstimate] = []
    with pytest.raises(ConfigError) as caught:
        open_or_build(tmp_path / "caches", adapter_of(teacher), PROMPTS, on_estimate=told.append)
    assert str(caught.value).startswith(
        f"The embeddings of 5 prompts need about {gib(told[0].total_bytes)} ({told[0].bytes_per_prompt} bytes a prompt)"
    )
    assert "free some space, use fewer prompts, or put the runs on another disk with --root." in str(caught.value)
    assert not (tmp_path / "caches").exists()


def test_the_estimate_is_what_the_rows_take(teacher: Path, tmp_path: Path) -> None:
    told: list[SizeEstimate] = []
    cache = open_or_build(tmp_path, adapter_of(teacher), PROMPTS, on_estimate=told.append)
    stored = sum(stored_prompt.num_bytes(open_shard(shard_of(cache, 0)).row(number)) for number in range(5))
    assert stored <= told[0].total_bytes < stored + 5
    assert told[0].measured_on == 5


def test_few_open_shards_give_what_many_give(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cache.batch([0, 2, 4])
    monkeypatch.setattr(embeddings, "_OPEN_SHARDS", 1)
    assert_equal(cache.batch([4, 2, 0]), expected.rows(torch.tensor([2, 1, 0])))
    assert len(cache._opened) <= 3


def test_a_place_that_cannot_be_written_is_told(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: a part of that path is a file, not a folder"):
        open_or_build(tmp_path / "file" / "caches", adapter_of(teacher), PROMPTS)


LONG = "a very long story of a cat that went to the sea and came home again"


def warnings_of(folder: Path, cache: Path, prompts: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level("WARNING", logger="fewstep"):
        open_or_build(cache, adapter_of(folder), prompts)
    return [record.getMessage() for record in caplog.records]


def test_prompts_that_the_encoder_cuts_are_counted_once(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # two CLIP encoders with equal tokenizers of 40 tokens: one sentence
    said = warnings_of(teacher, tmp_path, ("a cat", LONG, f"{LONG} again"), caplog)
    assert said == [f"2 of 3 prompts are longer than 40 tokens and are cut (CLIPTokenizer of {teacher})."]


def test_a_single_prompt_that_is_cut_is_told_in_the_singular(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings_of(teacher, tmp_path, ("a cat", LONG), caplog)[0].startswith("1 of 2 prompts is longer than 40")


def test_each_encoder_is_told_with_its_own_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tiny.save(tiny.sd3_pipeline(), tmp_path / "with-t5")
    said = warnings_of(whole, tmp_path / "cache", ("a cat", LONG), caplog)
    # max_sequence_length is 2 here: the T5 keeps less than the CLIPs do
    assert [line.partition(" (")[0] for line in said] == [
        "1 of 2 prompts is longer than 40 tokens and is cut",
        "2 of 2 prompts are longer than 2 tokens and are cut",
    ]


def test_prompts_that_fit_are_not_mentioned(teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(teacher, tmp_path, PROMPTS, caplog) == []


def test_a_prompt_as_long_as_the_limit_is_not_cut(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # one token per letter, one at each end
    assert warnings_of(teacher, tmp_path / "fits", ("x" * 38,), caplog) == []
    assert len(warnings_of(teacher, tmp_path / "cut", ("x" * 39,), caplog)) == 1
