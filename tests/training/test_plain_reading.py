import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.errors import CheckpointError
from fewstep.training import checkpoint as module
from fewstep.training.checkpoint import load_checkpoint, save_checkpoint, stored_tensors


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def state() -> dict[str, Any]:
    return {"student": {"weight": torch.ones(4, 3)}, "progress": {"step": 1, "betas": (0.9, 0.999), "none": None}}


def altered_index(checkpoint: Path, content: bytes) -> None:
    """Put another index into a checkpoint whose manifest agrees with it."""
    (checkpoint / ".metadata").write_bytes(content)
    manifest = json.loads((checkpoint / module.MANIFEST).read_text())
    manifest["files"][".metadata"] = module._sealed(checkpoint / ".metadata")
    (checkpoint / module.MANIFEST).write_text(json.dumps(manifest))


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


def test_an_index_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(), step=1, keep_last=1)
    altered_index(path, pickle.dumps({"state_dict_metadata": {}}))
    with pytest.raises(CheckpointError, match="it holds no index"):
        stored_tensors(path, "student")


def test_a_value_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trapped = state() | {"progress": {"step": Trap(tmp_path / "sprung"), "betas": (0.0, 0.0), "none": None}}
    path = save_checkpoint(tmp_path / "run", trapped, step=1, keep_last=1)
    assert json.loads((path / module.MANIFEST).read_text())["files"]
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_checkpoint(path, state())
    assert not (tmp_path / "sprung").exists()
