"""Seals: a file is what was written down about it, and stays in its folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fewstep import seals as module
from fewstep.files import UnreadableError, parse_json
from fewstep.seals import MEMORY, BrokenSealError, Seals, fingerprint, require_no_links, seal, verify

OLD = 1_600_000_000_000_000_000


def sealed(folder: Path, names: str = "ab") -> Seals:
    for name in names:
        (folder / name).write_bytes(name.encode() * 100)
    return {name: seal(folder / name) for name in names}


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def turned_into_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "cut": (lambda file: file.write_bytes(b"b" * 99), "holds 99 bytes instead of 100"),
    "altered": (lambda file: file.write_bytes(b"x" * 100), r"was altered \(its SHA-256 differs\)"),
    "linked": (linked, "is a symbolic link, which may lead out of the folder"),
    "a folder": (turned_into_a_folder, "is not a file"),
}


@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_as_it_was_is_named(damage: str, remember: bool, tmp_path: Path) -> None:
    known = sealed(tmp_path)
    verify(tmp_path, known, remember=remember)
    work, reason = DAMAGE[damage]
    work(tmp_path / "b")
    with pytest.raises(BrokenSealError, match=f"^{reason}$") as caught:
        verify(tmp_path, known, remember=remember)
    assert caught.value.path == tmp_path / "b"


def test_a_replacement_with_the_size_and_the_times_of_the_original_is_found(tmp_path: Path) -> None:
    known = sealed(tmp_path)
    os.utime(tmp_path / "b", ns=(OLD, OLD))
    verify(tmp_path, known, remember=True)
    (tmp_path / "b").write_bytes(b"x" * 100)
    os.utime(tmp_path / "b", ns=(OLD, OLD))
    with pytest.raises(BrokenSealError, match="was altered"):
        verify(tmp_path, known, remember=True)


def test_what_was_hashed_is_not_read_again_until_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = sealed(tmp_path)
    monkeypatch.setattr(module, "_SETTLED", -60.0)  # as if a minute had passed
    verify(tmp_path, known, remember=True)
    kept = json.loads((tmp_path / MEMORY).read_text())
    assert kept.keys() == {"a", "b"}
    monkeypatch.setattr(module, "_hashed", {})  # as in the next process
    (tmp_path / MEMORY).write_text(json.dumps({**kept, "a": [*kept["a"][:4], "0" * 64]}))
    with pytest.raises(BrokenSealError, match="was altered"):  # it believed what it remembered
        verify(tmp_path, known, remember=True)
    (tmp_path / "a").touch()
    verify(tmp_path, known, remember=True)


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"a": 1}', '{"a": [1, 2, 3, 4, 5]}', "[" * 100_000])
def test_a_damaged_memory_costs_time_and_nothing_else(text: str, tmp_path: Path) -> None:
    known = sealed(tmp_path)
    (tmp_path / MEMORY).write_text(text)
    verify(tmp_path, known, remember=True)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:a", "a\nb", "x" * 256])
def test_a_name_that_leaves_the_folder_is_no_name(name: str) -> None:
    entry = {name: {"bytes": 1, "sha256": "0" * 64}}
    with pytest.raises(UnreadableError, match="it is not the name of a file in this folder"):
        parse_json(json.dumps(entry), Seals)


@pytest.mark.parametrize("value", [{}, {"bytes": 1}, {"bytes": 0, "sha256": "0" * 64}, {"bytes": 1, "sha256": "0"}, []])
def test_half_a_seal_is_none(value: object) -> None:
    with pytest.raises(UnreadableError):
        parse_json(json.dumps({"a": value}), Seals)


def test_a_link_is_found_however_deep_it_is(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "file").write_text("")
    require_no_links(tmp_path)
    (tmp_path / "x" / "y" / "z").symlink_to("/nowhere")
    with pytest.raises(BrokenSealError, match="symbolic link") as caught:
        require_no_links(tmp_path)
    assert caught.value.path == tmp_path / "x" / "y" / "z"


def test_a_copied_model_has_the_same_content_and_a_changed_one_has_not(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"else")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(content)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
    assert fingerprint("owner/name") == "owner/name"


def test_a_weight_in_the_middle_of_a_large_file_counts(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    content = bytearray(1_000_000)
    weights.write_bytes(content)
    (tmp_path / "empty.txt").touch()
    before = fingerprint(tmp_path)
    content[500_000] = 1
    weights.write_bytes(content)
    assert fingerprint(tmp_path) != before


def test_what_is_larger_than_its_kind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(BrokenSealError, match=r"holds 11 bytes, more than any file of its kind \(10 at most\)"):
        seal(tmp_path / "a", max_bytes=10)
    assert seal(tmp_path / "a", max_bytes=11).bytes == 11
