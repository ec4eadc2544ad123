"""The one reader of JSON, files that are whole or absent, and how a message shows what somebody else wrote."""

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file

from fewstep.errors import CheckpointError, ConfigError, printable, shown, told_lines
from fewstep.files import (
    UnreadableError,
    explain_write_errors,
    load_json,
    parse_json,
    read_json,
    whole_file,
    whole_folder,
)


class Seal(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is not valid JSON (EOF while parsing a value"),
    "cut short": (b'{"a": {"bytes": 1', "it is not valid JSON (EOF while parsing an object"),
    "a list": (b"[]", "the whole is []: input should be an object"),
    "null": (b"null", "the whole is null: input should be an object"),
    "a text": (b'"files"', "the whole is 'files': input should be an object"),
    "an empty seal": (b'{"a": {}}', "a.bytes is {}: field required"),
    "a seal that is a list": (b'{"a": [1]}', "a is [1]: input should be an object"),
    "a text for a number": (b'{"a": {"bytes": "1", "sha256": ""}}', "a.bytes is '1': input should be a valid integer"),
    "an unknown key": (b'{"a": {"bytes": 1, "sha256": "", "more": 2}}', "a.more is 2: extra inputs are not permitted"),
    "brackets": (b"[" * 100_000, "it is not valid JSON (recursion limit exceeded"),
    "digits": (b'{"a": ' + b"1" * 5000 + b"}", "it is not valid JSON (number out of range"),
    "digits that no float holds": (
        b'{"a": {"bytes": ' + b"9" * 400 + b', "sha256": ""}}',
        "a.bytes is a whole number of 1329 bits; a whole number has at most 40 digits",
    ),
    "objects": (b'{"a": [' + b"{}," * 2**20 + b"{}]}", "it has 1048579 brackets, more than any JSON of its kind"),
    "commas": (b'{"a": [' + b"0," * (2**22 + 1) + b"0]}", "it has 4194305 commas, more than any JSON of its kind"),
    "no UTF-8": (b'{"a": "\xff"}', "it is not valid JSON (invalid unicode code point"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_another_shape_is_a_clause_that_says_what_stands_where(name: str, tmp_path: Path) -> None:
    content, reason = WRONG[name]
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        read_json(path, dict[str, Seal])
    assert str(caught.value).startswith(reason)  # where in the file is the parser's own word


@pytest.mark.parametrize(
    "text", ['{"sha": "' + "7" * 64 + '"}', '{"mean": 0.' + "3" * 64 + "}", '{"sum": ' + "9" * 40 + "}", '{"a": 1e400}']
)
def test_many_digits_in_a_text_or_behind_a_point_are_no_huge_number(text: str) -> None:
    assert parse_json(text, dict[str, Any]) == json.loads(text)


def test_numbers_that_are_none_are_read_as_published_files_have_them() -> None:
    assert parse_json('{"lambda_min_clipped": -Infinity}', dict[str, Any]) == {"lambda_min_clipped": float("-inf")}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "it is missing"),
        (lambda path: path.mkdir(), "it is not a file"),
        (os.mkfifo, "it is not a file"),  # a pipe would be waited for without end
        (lambda path: path.write_bytes(b" " * 101), "it has 101 bytes, more than any file of its kind (100 at most)"),
    ],
)
def test_what_is_no_file_or_a_huge_one_is_not_opened(make: Any, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "run.json")
    with pytest.raises(UnreadableError) as caught:
        read_json(tmp_path / "run.json", dict[str, Any], max_bytes=100)
    assert str(caught.value) == reason


def test_the_error_of_a_checkpoint_names_the_file_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        load_json(path, list[int], cure="Delete the folder")
    assert str(caught.value) == (
        f"{path} cannot be used: the whole is {{}}: input should be a valid array. Delete the folder."
    )


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


VALUES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "null"),
    "yes": (True, "true"),
    "number": (0.5, "0.5"),
    "colour": ("a\x1b[31mb", r"'a\x1b[31mb'"),
    "long": ("x" * 10**7, f"'{'x' * 76}..."),
    "digits": (10**5000, "a whole number of 16610 bits"),
    "endless": (endless(), "[[[[...]]]]"),
    "many": ({"a": [10**7] * 10**6}, "{'a': [10000000, 10000000, 10000000, 10000000, 10000000, 10000000, ...]}"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_message_shows_any_value_on_one_short_line(name: str) -> None:
    value, text = VALUES[name]
    assert shown(value) == text


def test_a_message_cannot_move_the_cursor_and_ends_after_twenty_lines() -> None:
    assert told_lines("a\x1b[2Jb\rc\u202ed") == [r"a\x1b[2Jb\rc\u202ed"]
    lines = told_lines("\n".join(f"problem {number}" for number in range(100)))
    assert len(lines) == 20
    assert lines[-1] == "... and 81 lines more"
    assert len(told_lines("x" * 10**6)[0]) == 2000


def test_half_a_character_is_no_text_and_is_escaped() -> None:
    assert printable("a\ud800b") == r"a\ud800b"
    with pytest.raises(UnreadableError, match="valid string"):
        parse_json('"\ud800"', str)


FULL = "No space left on device"
REFUSALS = {
    "the system": OSError(errno.ENOSPC, FULL),
    "a copy of a folder": shutil.Error([("a", "b", f"[Errno {errno.ENOSPC}] {FULL}: 'b'")]),
    "a library in Rust": Exception(f"{FULL} (os error {errno.ENOSPC})"),
    "torch, while it writes": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    "torch, at the end": RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
}


def behind(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("who", REFUSALS)
def test_a_full_disk_is_told_whoever_met_it(who: str, wrapped: bool) -> None:
    error: BaseException = REFUSALS[who]
    if wrapped:
        error = behind(ValueError("the model was not saved"), error)
    said = r"^out cannot be written: there is no space left on the disk\. Free some space"
    with pytest.raises(ConfigError, match=said), explain_write_errors(Path("out")):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        OSError(errno.EBADF, "Bad file descriptor"),
        behind(KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file")),  # somebody looked for something
        ConfigError("No."),
    ],
)
def test_an_error_that_is_not_the_disks_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_write_errors(Path("out")):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("who", REFUSALS)
def test_an_interruption_is_never_taken_for_the_disk(who: str, stop: BaseException) -> None:
    error = REFUSALS[who].with_traceback(None)
    with pytest.raises(type(stop)), explain_write_errors(Path("out")):
        raise behind(type(error)(*error.args), stop)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path, durable: bool, shared: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path, durable=durable, shared=shared) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), KeyboardInterrupt()])
def test_a_file_that_was_not_finished_leaves_the_old_one_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as unfinished:
            unfinished.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", [".", "inner/..", "../out"])
def test_an_empty_folder_may_be_named_in_any_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with whole_folder(Path(name), doing="exporting") as unfinished:
        (unfinished / "a.txt").write_text("a")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_folder_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out" / "model"
    with whole_folder(path, doing="exporting") as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not path.exists() and unfinished.name.startswith(".exporting-model-")
    assert [file.name for file in path.iterdir()] == ["a.txt"]
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "other", doing="exporting"):
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_files_of_a_library_may_be_read_by_whoever_may_read_ours(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o600)
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.safetensors") as unfinished:
            save_file({"a": torch.zeros(2)}, unfinished)
        with whole_folder(tmp_path / "folder", doing="exporting") as folder:
            (folder / "inside").mkdir()
            save_file({"a": torch.zeros(2)}, folder / "inside" / "a.safetensors")
            (folder / "link").symlink_to(outside)
    finally:
        os.umask(before)
    written = (tmp_path / "a.safetensors", tmp_path / "folder" / "inside" / "a.safetensors")
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o640, 0o640]
    assert stat.S_IMODE((tmp_path / "folder" / "inside").stat().st_mode) == 0o750
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
