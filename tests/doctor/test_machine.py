"""Folders that cannot be written to, and what computes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fewstep.devices import fastest_device
from fewstep.doctor.machine import attention, devices, folder

MOVE = "name another place"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, which is full."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    (path / "filler").write_bytes(b"\0" * 2**16)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False)


def test_a_folder_that_is_not_there_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    line = folder("runs", tmp_path / "a" / "runs", elsewhere=MOVE)
    assert not line.broken
    assert "GiB free" in line.found
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_broken(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    line = folder("runs", tmp_path / "runs", elsewhere=MOVE)
    assert (line.state, line.fix) == ("broken", MOVE)
    assert line.found == f"{tmp_path / 'runs'} cannot be written to: a part of that path is a file, not a folder"


def test_a_full_disk_is_broken(small_disk: Path) -> None:
    line = folder("cache", small_disk / "hub", elsewhere=MOVE)
    assert line.state == "broken"
    assert line.found.endswith("cannot be written to: there is no space left on the disk")


def test_a_disk_with_little_room_is_a_note(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    line = folder("cache", small_disk / "hub", elsewhere=MOVE)
    assert (line.state, line.fix) == ("note", f"free some space, or {MOVE}")


def test_every_device_is_told_and_a_missing_gpu_says_what_to_do() -> None:
    found = {line.about: line for line in devices()}
    assert len([about for about in found if about.startswith("cuda:")]) == torch.cuda.device_count()
    assert "GiB; bf16" in found["cpu"].found
    assert ("gpu" in found) == (fastest_device() == "cpu")
    assert all(line.fix for about, line in found.items() if about == "gpu")


def test_the_kernels_of_attention_are_tried() -> None:
    line = attention()
    assert "plain" in line.found
    assert line.found.endswith(f" of PyTorch on {fastest_device()}")
