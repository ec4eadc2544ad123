from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fewstep.embedded.digits.task import Digits
from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.metrics.reference import (
    MAX_BYTES,
    Reference,
    ReferenceSource,
    Statistics,
    cached_reference,
    open_reference,
)
from fewstep.scores.networks.extractors import DIGITS, EmbeddedExtractor, Extractor
from fewstep.scores.pictures import MAX_FILE_BYTES
from tests.scores.test_pictures import BAD
from tests.scores.tiny_digits import write_digits
from tests.scores.tiny_pictures import features_of, metric_of


class NeverLoaded(EmbeddedExtractor):
    def build(self) -> nn.Module:
        raise AssertionError("the features are in the cache or in a file; nothing has to be loaded")


def never() -> Extractor:
    return NeverLoaded(DIGITS, None)


def digits() -> Extractor:
    return EmbeddedExtractor(DIGITS, None)


def test_a_metric_without_a_reference_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match=r"kid compares with real pictures and has none.*--set kid\.reference=PATH"):
        open_reference("kid", None, extractor="inception")


def test_the_digits_extractor_brings_the_demos_reference() -> None:
    found = open_reference("kid", None, extractor="digits").read(never())
    assert isinstance(found, Reference)
    assert torch.equal(found.features, Digits().load_reference())


def test_a_folders_features_are_computed_once_and_then_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_digits(tmp_path / "real", [0, 1, 2])
    source = ReferenceSource("fid", tmp_path / "real")
    first = cached_reference(source, digits())
    second = cached_reference(source, never())
    assert isinstance(first, Reference) and isinstance(second, Reference)
    assert first.features.shape == (3, 64)
    assert torch.equal(first.features, second.features)


def test_other_pictures_of_the_same_names_are_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_digits(tmp_path / "real", [0, 1, 2])
    first = cached_reference(ReferenceSource("fid", tmp_path / "real"), digits())
    write_digits(tmp_path / "real", [3, 4, 5])
    second = cached_reference(ReferenceSource("fid", tmp_path / "real"), digits())
    assert isinstance(first, Reference) and isinstance(second, Reference)
    assert not torch.equal(first.features, second.features)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_digits(tmp_path / "real", [0, 1])
    with pytest.raises(ConfigError, match="Set XDG_CACHE_HOME to a folder that can be written"):
        cached_reference(ReferenceSource("fid", tmp_path / "real"), digits())


def test_the_digest_is_that_of_the_pictures_not_of_their_folder(tmp_path: Path) -> None:
    write_digits(tmp_path / "a", [5, 6])
    write_digits(tmp_path / "b", [5, 6])
    write_digits(tmp_path / "c", [6, 5])
    a, b, c = (ReferenceSource("fid", tmp_path / name).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("names", [("mean", "covariance"), ("mu", "sigma")])
def test_statistics_are_read_from_npz_by_either_pair_of_names(tmp_path: Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / "coco.npz", **{names[0]: np.ones(3), names[1]: np.eye(3)})
    found = ReferenceSource("fid", tmp_path / "coco.npz").read(never())
    assert isinstance(found, Statistics)
    assert found.mean.tolist() == [1, 1, 1] and torch.equal(found.covariance, torch.eye(3, dtype=torch.float64))


def test_features_are_read_from_safetensors(tmp_path: Path) -> None:
    save_file({"features": torch.arange(6.0).view(3, 2)}, tmp_path / "real.safetensors")
    found = ReferenceSource("fid", tmp_path / "real.safetensors").read(never())
    assert isinstance(found, Reference)
    assert found.features.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_an_npz_with_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", mu=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"bad\.npz cannot be read"):
        ReferenceSource("fid", tmp_path / "bad.npz").read(never())


@pytest.mark.parametrize(
    ("name", "most"), [("real/000.png", MAX_FILE_BYTES), ("real.npz", MAX_BYTES), ("real.safetensors", MAX_BYTES)]
)
def test_what_is_larger_than_any_reference_is_not_read(tmp_path: Path, name: str, most: int) -> None:
    write_digits(tmp_path / "real", [0, 1])
    with (tmp_path / name).open("wb") as hole:
        hole.truncate(most + 1)
    place = tmp_path / name.split("/")[0]
    with pytest.raises(
        ConfigError, match=rf"fid\.reference is .*{name} holds {most + 1} bytes, more than any .*{most}"
    ):
        _ = ReferenceSource("fid", place).digest


def test_an_npz_that_unpacks_to_more_than_any_reference_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "coco.npz", features=np.zeros((1_000, 1_000)))
    monkeypatch.setattr("fewstep.scores.metrics.reference.MAX_BYTES", 2**20)
    with pytest.raises(CheckpointError, match=r"unpacked it holds 8000128 bytes, more than any reference \(1048576 at"):
        ReferenceSource("fid", tmp_path / "coco.npz").read(never())


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="holds weights; it must hold features, or mean and covariance"):
        ReferenceSource("fid", tmp_path / "model.safetensors").read(never())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "which does not exist"),
        ("empty", "which holds 0 pictures"),
        ("table.csv", r"a reference file is one of \.safetensors, \.npz"),
    ],
)
def test_a_reference_that_is_none_is_refused_before_anything_is_drawn(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("a")
    with pytest.raises(ConfigError, match=message):
        ReferenceSource("fid", tmp_path / name).check()


# what Pillow answers with an OSError, a SyntaxError and a DecompressionBombError
@pytest.mark.parametrize("kind", ["a text", "pixels that are no stream", "a bomb"])
def test_a_broken_reference_picture_is_named(tmp_path: Path, kind: str) -> None:
    write_digits(tmp_path, [0, 1])
    (tmp_path / "001.png").write_bytes(BAD[kind][0])
    with pytest.raises(ConfigError, match=r"The reference picture .*001\.png of fid cannot be read"):
        ReferenceSource("fid", tmp_path).read(digits())


def test_a_folder_that_is_called_like_a_picture_is_no_picture(tmp_path: Path) -> None:
    write_digits(tmp_path, [0, 1])
    before = ReferenceSource("fid", tmp_path).digest
    (tmp_path / "old.png").mkdir()
    assert ReferenceSource("fid", tmp_path).digest == before


def test_a_reference_picture_has_the_features_of_the_same_picture_drawn(tmp_path: Path) -> None:
    pictures = write_digits(tmp_path / "real", [3, 41])
    metric = metric_of("fid", extractor="digits", reference=str(tmp_path / "real"))
    metric.load(torch.device("cpu"))
    found = metric.reference.read(metric.extractor)
    assert isinstance(found, Reference)
    assert torch.equal(found.features, features_of(metric, pictures))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", b""),
        ("a.npz", b"a text"),
        ("a.npz", b"PK\x03\x04 and no more"),
        ("a.npz", b"\x93NUMPY\x01\x00"),
        ("a.safetensors", b""),
        ("a.safetensors", b"\xff" * 40),
    ],
)
def test_a_damaged_reference_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"The reference .*{name} cannot be read: .+\. Make it again"):
        ReferenceSource("fid", tmp_path / name).read(never())


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"features": torch.zeros(4)}, r"features has shape \(4,\) of float32; it must have 2 axes"),
        ({"features": torch.zeros(0, 4)}, "features has shape"),
        ({"features": torch.full((2, 2), float("nan"))}, "it must have finite floating-point numbers"),
        ({"features": torch.zeros(2, 2, dtype=torch.int64)}, "of int64; it must have finite floating-point numbers"),
        (
            {"mu": torch.zeros(3), "sigma": torch.zeros(2, 2)},
            "sigma has shape .* 3 rows and columns, as mu",
        ),
        ({"mean": torch.zeros(2, 2), "covariance": torch.zeros(2, 2)}, "mean has shape .* it must have 1 axes"),
    ],
)
def test_tables_of_another_shape_are_refused_with_both(
    tmp_path: Path, tables: dict[str, torch.Tensor], sentence: str
) -> None:
    save_file(tables, tmp_path / "real.safetensors")
    with pytest.raises(ConfigError, match=sentence):
        ReferenceSource("fid", tmp_path / "real.safetensors").read(never())


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_digits(tmp_path / "real", [0, 1])
    source = ReferenceSource("fid", tmp_path / "real")
    first = cached_reference(source, digits())
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(b"")
    again = cached_reference(source, digits())
    assert isinstance(first, Reference) and isinstance(again, Reference)
    assert torch.equal(first.features, again.features)
