"""Numbers recorded once from the published code; README.md beside this file says how they were made."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent


@cache
def arrays(name: str) -> dict[str, npt.NDArray[Any]]:
    """All arrays of one recorded file."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@cache
def record(name: str) -> dict[str, Any]:
    """The plain values recorded beside the arrays."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def functions() -> dict[str, npt.NDArray[Any]]:
    """Calls of the published functions."""
    return arrays("functions")


def values() -> dict[str, Any]:
    """Plain values of the published functions."""
    return record("functions")
