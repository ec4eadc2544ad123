"""The errors a user can meet, the exit code each one ends the command with, and how a message shows a value."""

import reprlib
from enum import IntEnum
from typing import Any

MAX_LINES = 20
_MAX_LINE = 2000


class Exit(IntEnum):
    """What a command ends with."""

    OK = 0
    INTERNAL = 1
    USER = 2
    UNHEALTHY = 3
    INTERRUPTED = 130
    UNREAD = 141


class FewstepError(Exception):
    """Base of every error that is told to the user as one sentence, without a traceback."""

    exit_code: int = Exit.USER
    told = False
    """Whether another process of the run tells it, so that this one keeps quiet."""


class ConfigError(FewstepError, ValueError):
    """What the user asked for cannot be done: a value, a file or a combination of settings."""


class CheckpointError(FewstepError, RuntimeError):
    """A file that should hold saved state is damaged, incomplete or belongs to something else."""


class NonFiniteError(FewstepError, RuntimeError):
    """A loss or a gradient is not a finite number; the run stopped before any weight moved."""

    exit_code = Exit.INTERNAL


class UnhealthyError(FewstepError, RuntimeError):
    """A signal says that the training goes wrong, and the recipe asks to stop then; the run was saved."""

    exit_code = Exit.UNHEALTHY


class _Short(reprlib.Repr):
    """``repr`` that never takes long: of long, deep or endless values it writes the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 6
        self.maxstring = self.maxother = 400

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 400 else f"a whole number of {x.bit_length()} bits"


_SHORT = _Short()


def shown(value: Any, limit: int = 80, *, quoted: bool = True) -> str:
    """How a message shows a value: as YAML and JSON write it, one line, cut behind ``limit`` characters.

    Args:
        quoted: Texts in quotes; False for names and paths, of which control characters are still escaped.
    """
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str) and not quoted:
        text = printable(value)
    else:
        text = _SHORT.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def printable(text: str) -> str:
    """A text without characters that move a cursor, change a colour or cannot be written: they are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def told_lines(message: str) -> list[str]:
    """A message as a terminal gets it: :func:`printable`, at most ``MAX_LINES`` lines of ``_MAX_LINE`` characters."""
    lines = [printable(line) for line in message[: MAX_LINES * _MAX_LINE].split("\n")]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"... and {len(lines) - MAX_LINES + 1} lines more"]
    return [line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 3]}..." for line in lines]
