"""Pickles that are small and cost for ever are refused; those that libraries write pass."""

import collections
import pickle
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch

from fewstep.pickles import require_tame, require_tame_weights
from tests.pickle_bombs import BOMBS, REPEATED, with_pickle


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(UnpicklingError, match=r"no checkpoint|damaged|used before"):
        require_tame(BOMBS[name])


@pytest.mark.parametrize("instruction", REPEATED)
def test_an_instruction_a_million_times_is_refused(instruction: str) -> None:
    with pytest.raises(UnpicklingError, match=r"no checkpoint|damaged"):
        require_tame(REPEATED[instruction])


SHARED = (1, "a")
VALUES: dict[str, Any] = {
    "plain": {"a": [1, 2.5, None, True, -3, 2**40], "b": "x" * 300, "c": b"y" * 300, (1, 2): "key"},
    "shared": [SHARED, SHARED, {"a": SHARED}],
    "many": {f"key{number}": (number, [number]) for number in range(5000)},
    "ordered": collections.OrderedDict(a=1, b=2),
    "sizes": [torch.Size((3, 4)), torch.float32],
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", VALUES)
def test_what_pickle_writes_passes(name: str, protocol: int) -> None:
    written = pickle.dumps(VALUES[name], protocol)
    assert require_tame(written + b"more") == len(written)


def weights() -> dict[str, Any]:
    layer = torch.nn.Linear(3, 2)
    return {**layer.state_dict(), "tied": layer.weight, "half": torch.ones(2, dtype=torch.bfloat16), "step": 3}


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_torch_writes_pass(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=zipped)
    require_tame_weights(path)
    with path.open("rb") as file:
        require_tame_weights(file)
        assert file.tell() == 0
        assert torch.load(file, weights_only=True).keys() == weights().keys()


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_are_a_bomb_are_refused(zipped: bool, name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(with_pickle(path.read_bytes(), BOMBS[name]) if zipped else BOMBS[name])
    with pytest.raises(UnpicklingError, match=r"no checkpoint|damaged|used before"):
        require_tame_weights(path)


def test_what_is_no_file_of_weights_is_left_to_torch(tmp_path: Path) -> None:
    (tmp_path / "empty.bin").touch()
    require_tame_weights(tmp_path / "empty.bin")
    (tmp_path / "zip.bin").write_bytes(b"PK\3\4 and no more")
    require_tame_weights(tmp_path / "zip.bin")
