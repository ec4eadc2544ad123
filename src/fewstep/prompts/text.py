"""The one check at the boundary: a prompt is a text that every tokenizer takes."""

from collections.abc import Sequence
from typing import Any

from fewstep.errors import ConfigError, shown

MAX_CHARACTERS = 2**15
"""No text encoder reads a tenth of it; what is longer is a file that was read the wrong way."""
_BYTE_ORDER_MARK = "\ufeff"


def require_prompt(text: Any, *, place: str) -> str:
    """Return a prompt as it is, or say why it cannot be one.

    Args:
        text: What stands in a prompt's place.
        place: Where that is, as the beginning of a sentence: ``Line 3 of prompts.txt``.

    Raises:
        ConfigError: It is no text, too long, or holds what no tokenizer takes.
    """
    fault = _fault(text)
    if fault is not None:
        raise ConfigError(f"{place} {fault}.")
    return str(text)


def require_prompts(texts: Sequence[Any]) -> list[str]:
    """:func:`require_prompt` for texts that come from a call or a command line, named by their numbers."""
    return [require_prompt(text, place=f"Prompt {number} of {len(texts)}") for number, text in enumerate(texts, 1)]


def _fault(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"is {shown(text)}; a prompt must be a text"
    if len(text) > MAX_CHARACTERS:
        return (
            f"has a prompt of {len(text)} characters, {shown(text, 40)}; a prompt has at most {MAX_CHARACTERS}, so "
            "give each prompt a line or a row of its own"
        )
    if "\0" in text:
        return (
            f"has a NUL character in its prompt {shown(text, 40)}; remove it, or, if the file was saved as UTF-16, "
            "save it as UTF-8"
        )
    if text.startswith(_BYTE_ORDER_MARK):
        return f"has a prompt that begins with a byte order mark, {shown(text, 40)}; remove that character"
    return None if text.isascii() else _broken_character(text)


def _broken_character(text: str) -> str | None:
    """A character that has no UTF-8: a byte that the command line could not read, or half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        # how Python keeps the bytes of a command line that are not UTF-8
        found = f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character (U+{code:04X})"
        return f"has {found} in its prompt {shown(text, 40)}, which is not UTF-8; write the text in UTF-8"
    return None
