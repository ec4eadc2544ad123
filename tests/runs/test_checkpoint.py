import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from fewstep.errors import CheckpointError
from fewstep.runs.checkpoint import load_checkpoint, stored_about, stored_tensors
from fewstep.runs.places import checkpoints, pointed_to
from fewstep.runs.saving import drop_later_checkpoints, save_checkpoint


def state(value: float = 1.0) -> dict[str, Any]:
    return {"student": {"weight": torch.full((4, 3), value)}, "progress": {"step": int(value)}}


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(3.0), step=3, keep_last=2)
    loaded = state(0.0)
    load_checkpoint(tmp_path / "step-00000003", loaded)
    assert torch.equal(loaded["student"]["weight"], torch.full((4, 3), 3.0)) and loaded["progress"]["step"] == 3


def test_one_section_is_read_without_a_network(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(2.0), step=2, keep_last=2)
    assert torch.equal(stored_tensors(path, "student").all()["weight"], torch.full((4, 3), 2.0))
    assert stored_tensors(path, "ema").empty == {}


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, state(float(step)), step=step, keep_last=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000004", "step-00000006"]
    assert (tmp_path / "latest").read_text() == "step-00000006\n"


def test_the_last_healthy_checkpoint_is_kept_and_those_behind_it_can_be_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        about = {"about": step}
        save_checkpoint(tmp_path, state(), step=step, keep_last=1, is_healthy=step < 3, is_best=step == 3, about=about)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003", "step-00000004"]
    healthy = pointed_to(tmp_path / "healthy")
    assert healthy == tmp_path / "step-00000002" and stored_about(healthy) == {"about": 2}
    drop_later_checkpoints(tmp_path, healthy)
    assert checkpoints(tmp_path) == [healthy]
    assert (tmp_path / "latest").read_text() == "step-00000002\n" and not (tmp_path / "best").exists()


def test_what_a_killed_save_left_is_not_a_checkpoint_and_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".saving-step-00000009-abc").mkdir(parents=True)
    assert checkpoints(tmp_path) == []
    save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]


def test_a_truncated_file_is_named_with_its_sizes(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    file = path / "__0_0.distcp"
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, state())
    assert f"{file} holds {whole - 5} bytes instead of {whole}. Delete {path} and resume" in str(caught.value)


def test_an_altered_file_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    file = path / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"__0_0.distcp was altered \(its SHA-256 differs\)"):
        load_checkpoint(path, state())


@pytest.mark.parametrize(("name", "sentence"), [(".metadata", "metadata is missing"), ("manifest.json", "no readable")])
def test_a_missing_file_is_named(name: str, sentence: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(path, state())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    other = {"student": {"weight": torch.zeros(5, 3)}, "progress": {"step": 0}}
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_checkpoint(path, other)


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, state(1.0), step=1, keep_last=1)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dcp, "save", full)
    with pytest.raises(CheckpointError, match=r"could not be written \(OSError: .*No space left"):
        save_checkpoint(tmp_path, state(2.0), step=2, keep_last=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert stored_tensors(tmp_path / "step-00000001", "student").all()["weight"].eq(1.0).all()


def test_tensors_are_read_in_parts_of_a_bounded_size(tmp_path: Path) -> None:
    weights = {f"w{i}": torch.full((100,), float(i)) for i in range(5)} | {"large": torch.ones(1_000)}
    path = save_checkpoint(tmp_path, {"ema": weights, "student": {"w0": torch.zeros(9)}}, step=1, keep_last=1)
    parts = list(stored_tensors(path, "ema").parts(max_bytes=900))
    assert max(sum(t.nbytes for t in part.values()) for part in parts if "large" not in part) <= 900
    assert [sorted(part) for part in parts if "large" in part] == [["large"]]
    read = {name: value for part in parts for name, value in part.items()}
    assert read.keys() == weights.keys() and all(torch.equal(read[name], value) for name, value in weights.items())


def test_a_stop_of_the_checkpoint_library_that_is_no_exception_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not issubclass(CheckpointException, Exception)  # so that `except Exception` would let it pass

    def broken(*arguments: Any, **options: Any) -> None:
        raise CheckpointException("write", {0: (OSError(28, "No space left on device"), None)})

    monkeypatch.setattr(dcp, "save", broken)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, state(), step=1, keep_last=1)


MANIFESTS = {
    "nothing listed": ('{"files": {}}', "it lists no .metadata"),
    "no list": ("{}", "files is .*: field required"),
    "a list": ("[]", "the whole is "),
    "null": ("null", "the whole is "),
    "a path": ('{"files": {"../a": {"bytes": 1, "sha256": "%s"}}}' % ("0" * 64), "not the name of a file"),
    "brackets": ("[" * 100_000, "it is not valid JSON"),
    "no seal": ('{"files": {".metadata": null}}', "files..metadata is null"),
    "bytes": (b"\xff\xfe", "it is not valid JSON"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    content, sentence = MANIFESTS[name]
    (path / "manifest.json").write_bytes(content.encode() if isinstance(content, str) else content)
    for read in (lambda: load_checkpoint(path, state()), lambda: stored_tensors(path, "student")):
        with pytest.raises(CheckpointError, match=f"no readable manifest.json: .*{sentence}"):
            read()


def test_a_data_file_that_the_manifest_leaves_out_is_not_used(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["__0_0.distcp"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"refers to the file '__0_0.distcp', which is none of the checkpoint's"):
        load_checkpoint(path, state())


def test_links_in_place_of_a_file_or_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=2)
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    with pytest.raises(CheckpointError, match="is a symbolic link; put the folder itself there"):
        load_checkpoint(path, state())
    (moved / "__0_0.distcp").rename(tmp_path / "data")
    (moved / "__0_0.distcp").symlink_to(tmp_path / "data")
    with pytest.raises(CheckpointError, match=r"__0_0.distcp is a symbolic link, which may lead out of the folder"):
        load_checkpoint(moved, state())


@pytest.mark.parametrize(
    "content", [b"", b"../..", b"/etc", b"step-1", b"step-00000001/../..", b"\xff\x00", b"x" * 10**6]
)
def test_a_pointer_that_names_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best says .*, which is no checkpoint's name .*Delete that file"):
        pointed_to(tmp_path / "best")


def test_ctrl_c_during_a_save_is_ctrl_c_and_not_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, state(1.0), step=1, keep_last=1)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise CheckpointException("write", {0: (KeyboardInterrupt(), None)})  # what torch makes of it

    monkeypatch.setattr(dcp, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, state(2.0), step=2, keep_last=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
