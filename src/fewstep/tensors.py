"""The one way into a safetensors file: whatever stands under its name, it is opened or refused with a clause."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.files import UnreadableError


@contextmanager
def opened_tensors(path: Path) -> Iterator[Any]:
    """Open a file of tensors; each is read when it is asked for.

    Raises:
        UnreadableError: It is missing, is no file, or is damaged; within the block too.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # the library would wait for the other end of a pipe, and no signal would end that
        if not path.is_file():
            raise UnreadableError("it is not a file" if path.exists() else "it is missing")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UnreadableError(str(error)) from error


def all_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, mapped into memory.

    Raises:
        UnreadableError: As of :func:`opened_tensors`.
    """
    with opened_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
