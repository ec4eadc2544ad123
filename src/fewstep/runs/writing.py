"""Files that are whole or absent, and errors of the disk as sentences."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewstep.errors import ConfigError

_REASONS = {
    errno.ENOSPC: ("there is no space left on the disk", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EACCES: ("you have no permission to write there", "Change the permissions"),
    errno.EPERM: ("writing there is not permitted", "Change the permissions"),
    errno.EROFS: ("the file system is read-only", "Make it writable"),
    errno.ENOTDIR: ("a part of that path is a file, not a folder", "Remove the file"),
    errno.EEXIST: ("a file of that name is in the way", "Remove the file"),
    errno.EISDIR: ("a folder of that name is in the way", "Remove the folder"),
    errno.ENOENT: ("no folder can be made there", "Change the path"),
}


def disk_reason(error: OSError) -> str | None:
    """Why the disk refused, and what to do, or None for an error that the user did not cause."""
    if error.errno not in _REASONS:
        return None
    reason, remedy = _REASONS[error.errno]
    return f"{reason}. {remedy}, or choose another place."


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says about writing ``path`` into a ConfigError.

    safetensors reports a full disk as an error of its own, with the system's words in it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        raise ConfigError(f"{path} cannot be written: {reason}") from error
    except SafetensorError as error:
        raise ConfigError(f"{path} cannot be written: {error}. Free some space, or choose another place.") from error


def unfinished_name(name: str) -> str:
    """What :func:`write_json` calls a file until it is whole."""
    return f".{name}.unfinished"


def write_json(path: Path, value: Any) -> None:
    """Write plain data, whole or not at all."""
    unfinished = path.with_name(unfinished_name(path.name))
    with explain_write_errors(path):
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                json.dump(value, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
