"""The self-test says that all is well here, and finds a damaged and a wrong network."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fewstep.doctor.self_test import self_test
from fewstep.embedded.assets import DIGITS, assets_folder, in_place_of_shipped, write_manifest

NETWORK = "teacher/transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The shipped files, to be changed."""
    return shutil.copytree(assets_folder(DIGITS), tmp_path / "assets")


def test_a_machine_that_works_passes_and_says_what_was_done() -> None:
    line = self_test()
    assert line.state == "fine"
    assert "trained for an update" in line.found
    assert "its classifier sees red handwritten three and blue handwritten seven" in line.found


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def compute_wrong(file: Path) -> None:
    """What a broken kernel would make of it: numbers, but others."""
    save_file({name: -tensor for name, tensor in load_file(file).items()}, file)
    write_manifest(file.parents[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut, "training failed on cpu: CheckpointError: "),
        (compute_wrong, "drawing failed on cpu: the pictures do not show what was asked for"),
    ],
)
def test_a_machine_that_does_not_work_is_broken(change: Callable[[Path], None], said: str, copied: Path) -> None:
    change(copied / NETWORK)
    with in_place_of_shipped(DIGITS, copied):
        line = self_test()
    assert line.state == "broken"
    assert line.found.startswith(said)
    assert "fewstep doctor --json" in str(line.fix)
