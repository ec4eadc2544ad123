import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from fewstep.errors import CheckpointError
from fewstep.runs.checkpoint import load_checkpoint, stored_tensors
from fewstep.runs.places import MANIFEST
from fewstep.runs.safe_reading import _is_tiled
from fewstep.runs.saving import save_checkpoint
from fewstep.seals import seal
from tests.pickle_bombs import BOMBS, with_pickle


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def state() -> dict[str, Any]:
    return {"student": {"weight": torch.ones(4, 3)}, "progress": {"step": 1, "betas": (0.9, 0.999), "none": None}}


def altered_index(checkpoint: Path, content: bytes, *others: str) -> None:
    """Put another index into a checkpoint whose manifest agrees with it, and with other files that were altered."""
    (checkpoint / ".metadata").write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    for name in (".metadata", *others):
        manifest["files"][name] = seal(checkpoint / name).model_dump()
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    empty = {"student": {"weight": torch.zeros(4, 3)}, "progress": {"step": 0, "betas": (0.0, 0.0), "none": None}}
    load_checkpoint(path, empty)
    assert empty["progress"] == state()["progress"]
    assert torch.equal(empty["student"]["weight"], torch.ones(4, 3))


@pytest.mark.parametrize(
    "read", [lambda path: load_checkpoint(path, state()), lambda path: stored_tensors(path, "student")]
)
def test_an_index_that_runs_code_is_refused_and_does_not_run(read: Any, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "run", state(), step=1, keep_last=1)
    altered_index(path, pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match=r"refers to .*, which no checkpoint needs"):
        read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", BOMBS)
def test_an_index_that_takes_for_ever_is_refused(name: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    altered_index(path, BOMBS[name])
    with pytest.raises(CheckpointError, match=r"The index of the checkpoint .* cannot be read \(it "):
        load_checkpoint(path, state())


def test_an_index_that_is_larger_than_what_it_is_about_is_not_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    altered_index(path, b"\x80\2" + b"]" * 5_000_000 + b".")
    with pytest.raises(CheckpointError, match=r"it has 5000003 bytes, more than the 1048576 that it could be about"):
        load_checkpoint(path, state())


def test_a_value_that_takes_for_ever_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    index = pickle.loads((path / ".metadata").read_bytes())
    place, data = entry(index, "progress.step"), path / "__0_0.distcp"
    whole = data.read_bytes()
    bomb = with_pickle(whole[place.offset : place.offset + place.length], BOMBS["a key of 2**60 parts"])
    data.write_bytes(whole + bomb)
    put(place, offset=len(whole), length=len(bomb))
    altered_index(path, pickle.dumps(index), data.name)
    with pytest.raises(CheckpointError, match=r"a value of \d+ parts where no checkpoint has more"):
        load_checkpoint(path, state())


CUT: dict[str, tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]], bool]] = {
    "whole": ((4, 3), [((0, 0), (4, 3))], True),
    "rows": ((4, 3), [((2, 0), (2, 3)), ((0, 0), (2, 3))], True),
    "columns": ((4, 3), [((0, 0), (4, 1)), ((0, 1), (4, 2))], True),
    "rows, and a process without any": ((4, 3), [((0, 0), (4, 3)), ((4, 0), (0, 3))], True),
    "a number": ((), [((), ())], True),
    "a number twice": ((), [((), ()), ((), ())], False),
    "nothing": ((0, 3), [((0, 0), (0, 3))], True),
    "whole twice": ((4, 3), [((0, 0), (4, 3))] * 2, False),
    "overlapping rows": ((4, 3), [((0, 0), (3, 3)), ((2, 0), (2, 3))], False),
    "rows with a gap": ((4, 3), [((0, 0), (1, 3)), ((2, 0), (2, 3))], False),
    "rows twice and rows not at all": ((4, 3), [((0, 0), (2, 3)), ((0, 0), (2, 3))], False),
    "beyond the end": ((4, 3), [((0, 0), (5, 3))], False),
    "before the beginning": ((4, 3), [((-1, 0), (5, 3))], False),
    "a corner": ((4, 3), [((0, 0), (2, 2))], False),
    "many columns": ((1, 50_000), [((0, column), (1, 1)) for column in range(50_000)], True),
    "one column many times": ((1, 50_000), [((0, 0), (1, 1))] * 50_000, False),
}


@pytest.mark.parametrize("name", CUT)
def test_pieces_fill_a_tensor_once(name: str) -> None:
    size, chunks, fills = CUT[name]
    assert _is_tiled(size, chunks) is fills


def test_an_index_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    altered_index(path, pickle.dumps({"state_dict_metadata": {}}))
    with pytest.raises(CheckpointError, match="it holds no index"):
        stored_tensors(path, "student")


def test_a_value_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trapped = state() | {"progress": {"step": Trap(tmp_path / "sprung"), "betas": (0.0, 0.0), "none": None}}
    path = save_checkpoint(tmp_path / "run", trapped, step=1, keep_last=1)
    assert json.loads((path / MANIFEST).read_text())["files"]
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_checkpoint(path, state())
    assert not (tmp_path / "sprung").exists()


def entry(metadata: Metadata, name: str = "student.weight") -> Any:
    """Where the index says that a field is stored."""
    return next(place for index, place in metadata.storage_data.items() if index.fqn == name)


def put(thing: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(thing, name, value)


def tensor(metadata: Metadata) -> Any:
    return metadata.state_dict_metadata["student.weight"]


ALTERED: dict[str, tuple[Callable[[Metadata], object], str]] = {
    "a file outside": (lambda m: put(entry(m), relative_path="../elsewhere"), "which is none of the checkpoint's"),
    "an absolute path": (lambda m: put(entry(m), relative_path="/etc/passwd"), "which is none of the checkpoint's"),
    "no path": (lambda m: put(entry(m), relative_path=7), "which is none of the checkpoint's"),
    "bytes behind the end": (lambda m: put(entry(m), length=10**9), "bytes that .__0_0.distcp. does not have"),
    "bytes before the beginning": (lambda m: put(entry(m), offset=-1), "bytes that .__0_0.distcp. does not have"),
    "another coding": (lambda m: put(entry(m), transform_descriptors=["zstd"]), "in a way that no checkpoint needs"),
    "another type": (lambda m: put(tensor(m).properties, dtype=torch.float16), "stored as torch.float16 and not as"),
    "another shape": (lambda m: put(tensor(m), size=torch.Size((12,))), "holds no index"),
    "no pieces": (lambda m: put(tensor(m), chunks=[]), "parts of 'student.weight' are missing"),
    "half of the pieces": (
        lambda m: put(tensor(m).chunks[0], sizes=torch.Size((2, 3))),
        "'student.weight' are missing",
    ),
    "a piece twice": (lambda m: put(tensor(m), chunks=tensor(m).chunks * 2), "parts of 'student.weight' are missing"),
    "a field less": (lambda m: m.state_dict_metadata.pop("progress.step"), "'progress.step' is not in it"),
    "a field more": (
        lambda m: (
            m.state_dict_metadata.update(more=BytesStorageMetadata()),
            m.storage_data.update({type(next(iter(m.storage_data)))("more"): entry(m, "progress.step")}),
        ),
        "it holds 'more', which the run does not have",
    ),
    "a value for a tensor": (
        lambda m: m.state_dict_metadata.update({"student.weight": BytesStorageMetadata()}),
        "as a plain value and not as a tensor",
    ),
    "no list of fields": (lambda m: put(m, state_dict_metadata=[]), "it holds no index"),
    "no list of places": (lambda m: put(m, storage_data=None), "it holds no index"),
    "half an object": (lambda m: tensor(m).__dict__.pop("chunks"), "it holds no index"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_index_that_does_not_fit_the_files_or_the_run_is_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    work, sentence = ALTERED[name]
    work(metadata)
    altered_index(path, pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(path, state())
    printed = [r for r in caplog.records if r.levelno >= logging.WARNING and not r.name.startswith("c10d-NullHandler")]
    assert printed == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("student", {"weight": torch.ones(4, 3, dtype=torch.float64)}, "stored as torch.float64 and not as"),
        ("student", {"weight": torch.ones(3, 4)}, "with shape .3, 4. and not .4, 3."),
        ("student", {"weight": 1.0}, "as a plain value and not as a tensor"),
        ("progress", {"step": "1", "betas": (0.9,), "none": None}, "'progress.step' is stored as str and not as int"),
        (
            "progress",
            {"step": 1, "betas": None, "none": None},
            "betas' is stored as NoneType and not as tuple",
        ),
    ],
)
def test_a_field_of_another_type_or_shape_is_named(field: str, value: Any, sentence: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state() | {field: value}, step=1, keep_last=1)
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(path, state())


def test_data_of_another_type_than_the_index_says_are_not_cast(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"student": {"weight": torch.ones(8)}}, step=1, keep_last=1)
    other = {"student": {"weight": torch.ones(8, dtype=torch.int32)}}
    data = (save_checkpoint(tmp_path / "other", other, step=1, keep_last=1) / "__0_0.distcp").read_bytes()
    old = (path / "__0_0.distcp").stat().st_size
    (path / "__0_0.distcp").write_bytes(data[:old])
    altered_index(path, (path / ".metadata").read_bytes(), "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"'student.weight' is stored as torch.int32 and not as torch.float32"):
        load_checkpoint(path, {"student": {"weight": torch.zeros(8)}})
