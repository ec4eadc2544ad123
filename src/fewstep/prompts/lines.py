"""Lines of a text file, one at a time: UTF-8, of a bounded length, ended by a line feed."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fewstep.errors import ConfigError
from fewstep.files import MAX_LINE_BYTES

_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of prompts.

    Raises:
        ConfigError: It is missing, is no file, or cannot be read.
    """
    try:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise ConfigError(f"The prompt file {path} {problem}; check its path.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"The prompt file {path} cannot be read: {error.strerror or error}.") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, without their ends; a byte order mark is no part of the first.

    Raises:
        ConfigError: The file cannot be read, a line is too long or no UTF-8, or lines end with carriage returns alone.
    """
    with opened(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise ConfigError(
                    f"Line {number} of {path} has more than {MAX_LINE_BYTES} bytes; give each prompt a line of its own."
                )
            if number == 1:
                if raw.startswith(_OTHER_ENCODINGS):
                    raise ConfigError(f"The prompt file {path} is UTF-16 or UTF-32; save it as UTF-8.")
                raw = raw.removeprefix(codecs.BOM_UTF8)
            text = decoded(raw, f"Line {number} of {path}").removesuffix("\n").removesuffix("\r")
            if "\r" in text:
                raise ConfigError(
                    f"Line {number} of {path} holds a carriage return that is not followed by a line feed; end each "
                    "line with a line feed."
                )
            yield number, text


def decoded(raw: bytes, place: str) -> str:
    """Bytes of a file as text.

    Raises:
        ConfigError: They are no UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{place} is not UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start}); save the file as UTF-8."
        ) from error
