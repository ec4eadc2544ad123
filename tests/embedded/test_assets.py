"""The shipped files are whole, and a damaged one is named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewstep.embedded import assets
from fewstep.embedded.digits.task import Digits
from fewstep.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "teacher" / "vae").mkdir(parents=True)
    (tmp_path / "teacher" / "vae" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "teacher.txt").write_text("not in the teacher's folder")
    (tmp_path / "rows.json").write_text('{"real": {"fd": 0.5}}')
    assets.write_manifest(tmp_path)
    with assets.in_place_of_shipped("digits", tmp_path):
        yield tmp_path


def test_whole_files_pass(folder: Path) -> None:
    assert Digits().teacher_folder() == folder / "teacher"
    assert assets.check_files("digits", under="rows.json") == folder / "rows.json"


def test_truncated_file_is_named_with_what_to_do(folder: Path) -> None:
    (folder / "teacher" / "vae" / "weights.bin").write_bytes(b"weigh")
    with pytest.raises(CheckpointError, match=r"vae/weights.bin is damaged: its SHA-256 .* Install fewstep again"):
        Digits().teacher_folder()


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "rows.json").unlink()
    with pytest.raises(CheckpointError, match=r"rows.json is missing from the embedded teacher's files"):
        assets.check_files("digits", under="rows.json")


def test_damage_elsewhere_does_not_stop_what_is_whole(folder: Path) -> None:
    (folder / "teacher.txt").write_text("changed")
    assert assets.check_files("digits", under="teacher") == folder / "teacher"


def test_whole_check_finds_damage_in_any_file(folder: Path) -> None:
    (folder / "teacher.txt").write_text("changed")
    with pytest.raises(CheckpointError, match=r"teacher.txt is damaged"):
        assets.check_files("digits")


def test_missing_manifest_is_named(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be used: it is missing. Install fewstep again"):
        assets.check_files("digits")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_manifest_is_named(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be used"):
        assets.check_files("digits")


def test_file_that_the_manifest_does_not_record_is_refused(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"records no file 'extra.json'"):
        assets.check_files("digits", under="extra.json")


def test_manifest_records_every_file_but_itself(folder: Path) -> None:
    recorded = json.loads((folder / "manifest.json").read_text())
    assert sorted(recorded) == ["rows.json", "teacher.txt", "teacher/vae/weights.bin"]
