"""The one reader of safetensors: whatever stands under a file's name is read, or refused at once."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fewstep
from fewstep.files import UnreadableError
from fewstep.tensors import all_tensors


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    saved = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([7])}
    save_file(saved, tmp_path / "x.safetensors")
    found = all_tensors(tmp_path / "x.safetensors")
    assert found.keys() == saved.keys() and all(torch.equal(found[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "it is missing"),
        (lambda path: path.symlink_to(path.name), "it is missing"),  # Python says of a link to itself that it is absent
        (lambda path: path.mkdir(), "it is not a file"),
        (os.mkfifo, "it is not a file"),  # the library would wait, and no signal would end that
        (lambda path: path.symlink_to("/dev/zero"), "it is not a file"),
        (lambda path: path.write_bytes(b""), "Error while deserializing header"),
        (lambda path: path.write_bytes((2**60).to_bytes(8, "little") + b"{}"), "Error while deserializing header"),
    ],
)
def test_what_is_no_such_file_is_refused_at_once(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.safetensors")
    with pytest.raises(UnreadableError, match=reason):
        all_tensors(tmp_path / "x.safetensors")


def test_a_name_that_the_system_refuses_is_refused_with_a_clause(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="File name too long"):
        all_tensors(tmp_path / f"{'x' * 300}.safetensors")


def test_no_other_file_opens_one() -> None:
    source = Path(fewstep.__file__).parent
    opening = re.compile(r"\b(safe_open|load_file)\b")
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if opening.search(path.read_text())}
    assert found == {"tensors.py"}
