"""A safetensors file of weights that somebody names: opened, and its tensors counted, before any of them is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError
from fewstep.tensors import opened_tensors

_MAX_TENSORS = 2**15
"""The largest networks have about 2,000; a file that is all names keeps a loader busy for minutes."""


@contextmanager
def opened(path: Path, *, what: str, cure: str) -> Iterator[Any]:
    """Open a file of weights.

    Args:
        path: The file.
        what: It, for the message, such as ``The LoRA``.
        cure: What to do when it is damaged.

    Raises:
        CheckpointError: It cannot be read, within the block too, or holds more tensors than any network has.
    """
    try:
        with opened_tensors(path) as file:
            if (count := len(file.keys())) > _MAX_TENSORS:
                told = f"{count} tensors, more than the {_MAX_TENSORS} that any network has"
                raise CheckpointError(f"{what} {path} cannot be read ({told}). {cure}.")
            yield file
    except UnreadableError as error:
        raise CheckpointError(f"{what} {path} cannot be read ({error}). {cure}.") from error
