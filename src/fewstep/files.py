"""Plain files: JSON that may come from anybody, files that are whole or absent, errors of the disk as sentences."""

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from fewstep.errors import CheckpointError, ConfigError, FewstepError, shown

_T = TypeVar("_T")

_MAX_JSON_BYTES = 64 * 2**20
"""No JSON file that a model, a run or a cache consists of comes near it; more is refused before it is read."""

_MAX_JSON_COMMAS = 2**22
_MAX_JSON_BRACKETS = 2**20
"""What each of its values costs is many times its bytes: 16 MiB of empty objects would be 2 GiB."""
_MAX_JSON_DIGITS = 40
"""Of a whole number, as in settings; one of 400 is no number for anything that computes with it."""

MAX_LINE_BYTES = 16 * 2**20
"""Of a line of text, or of a row with all its columns: what is longer is no line of anything that is read here."""

_REASONS = {
    errno.ENOSPC: ("there is no space left on the disk", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EACCES: ("you have no permission to write there", "Change the permissions"),
    errno.EPERM: ("writing there is not permitted", "Change the permissions"),
    errno.EROFS: ("the file system is read-only", "Make it writable"),
    errno.EFBIG: ("a file may not grow that large there (ulimit -f, or the file system)", "Raise the limit"),
    errno.EIO: ("the disk reports an error of its own", "Look at the disk"),
    errno.ENAMETOOLONG: ("the name is longer than the file system takes", "Shorten it"),
    errno.ELOOP: ("its symbolic links lead in a circle", "Remove the link"),
    errno.ENOTDIR: ("a part of that path is a file, not a folder", "Remove the file"),
    errno.EEXIST: ("a file of that name is in the way", "Remove the file"),
    errno.EISDIR: ("a folder of that name is in the way", "Remove the folder"),
    errno.ENOENT: ("no folder can be made there", "Change the path"),
}
# what a disk says while somebody else's code writes, which wraps it as it likes
_WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_MANY_DIGITS = re.compile(rb"\d{%d}" % (_MAX_JSON_DIGITS + 1))
_NUMBER = re.compile(r"(?:os error |\[Errno )(\d+)")  # Rust's words, and Python's
# torch's writer counts the bytes that arrived
_CUT_OFF = re.compile(r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+")


class UnreadableError(ValueError):
    """Why a file or a text is not the plain data asked for: a clause such as ``it is not valid JSON (...)``."""


def read_json(path: Path, shape: type[_T], *, max_bytes: int = _MAX_JSON_BYTES) -> _T:
    """Read a JSON file whose content nobody vouches for.

    Args:
        path: The file.
        shape: What it has to hold: a pydantic model, a dataclass, or a type such as ``dict[str, Any]``.
        max_bytes: A larger file is not opened.

    Raises:
        UnreadableError: It is missing, is no file, is too large, is no JSON, or holds something else.
    """
    try:
        if not path.is_file():
            raise UnreadableError("it is not a file" if path.exists() else "it is missing")
        size = path.stat().st_size
        if size > max_bytes:
            raise UnreadableError(f"it has {size} bytes, more than any file of its kind ({max_bytes} at most)")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror or error}") from error
    return parse_json(content, shape)


def load_json(path: Path, shape: type[_T], *, cure: str, max_bytes: int = _MAX_JSON_BYTES) -> _T:
    """:func:`read_json` for files of a checkpoint, a run or a cache.

    Args:
        cure: What to do when the file cannot be used: a sentence without its full stop.

    Raises:
        CheckpointError: The file, the reason and the cure.
    """
    try:
        return read_json(path, shape, max_bytes=max_bytes)
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be used: {error}. {cure}.") from error


def parse_json(text: str | bytes, shape: type[_T]) -> _T:
    """Parse one JSON document of a given shape; ``NaN`` and infinities are numbers, as published files have them.

    Raises:
        UnreadableError: It is no JSON, has too many values, brackets or digits, or holds something else.
    """
    from pydantic import ValidationError

    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    _require_few_values(content)
    try:
        value: _T = _reader(cast(Hashable, shape)).validate_json(text, strict=True)
        if _MANY_DIGITS.search(content):  # in a text or behind a decimal point they may stand
            _require_few_digits(_reader(object).validate_json(text))
    except ValidationError as error:
        raise UnreadableError(_misfit(error)) from error
    return value


def _require_few_values(content: bytes) -> None:
    """Refuse what would take gigabytes once it is parsed, before it is."""
    for what, most, count in (
        ("commas", _MAX_JSON_COMMAS, content.count(b",")),
        ("brackets", _MAX_JSON_BRACKETS, content.count(b"[") + content.count(b"{")),
    ):
        if count > most:
            raise UnreadableError(f"it has {count} {what}, more than any JSON of its kind ({most} at most)")


def _require_few_digits(value: Any) -> None:
    waiting: list[tuple[str, Any]] = [("the whole", value)]
    while waiting:
        place, one = waiting.pop()
        if isinstance(one, int) and abs(one) >= 10**_MAX_JSON_DIGITS:
            raise UnreadableError(
                f"{shown(place, quoted=False)} is {shown(one)}; a whole number has at most {_MAX_JSON_DIGITS} digits"
            )
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        waiting += [(str(key) if place == "the whole" else f"{place}.{key}", inner) for key, inner in items]


@cache
def _reader(shape: Any) -> Any:
    """Made once for each shape: making it takes as long as parsing a hundred lines."""
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _misfit(error: Any) -> str:
    """The first thing that is wrong, with the key at which it stands."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"it is not valid JSON ({first['ctx']['error']})"
    place = ".".join(map(str, first["loc"]))
    said = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"{shown(place, quoted=False) if place else 'the whole'} is {shown(first['input'])}: {said}"


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file that grows, numbered from 1; empty ones and a last one that a kill cut off are left out.

    One line is held at a time, so neither a huge file nor a hole in it takes memory.

    Raises:
        UnreadableError: It is missing, is no file, cannot be read, or has a line longer than any of its kind.
    """
    try:
        if not path.is_file():  # a pipe would be waited for, and for ever
            raise UnreadableError("it is not a file" if path.exists() else "it is missing")
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    raise UnreadableError(f"its line {number} has more than {MAX_LINE_BYTES} bytes")
                if line.endswith(b"\n") and line != b"\n":
                    yield number, line[:-1]
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror or error}") from error


def disk_errno(error: BaseException) -> int | None:
    """The number under which the disk refused, from whatever a library made of it; None for any other error."""
    if isinstance(error, OSError) and error.errno in _REASONS:
        return error.errno
    for one in _chain(error):
        number = one.errno if isinstance(one, OSError) else None
        if number is None and isinstance(one, Exception):
            found = _NUMBER.search(str(one)[:10_000])
            number = int(found[1]) if found else errno.ENOSPC if _CUT_OFF.search(str(one)[:10_000]) else None
        if number in _WHILE_WRITING:
            return number
    return None


def disk_reason(error: BaseException) -> str | None:
    """Why the disk refused, and what to do, or None for an error that the user did not cause."""
    number = disk_errno(error)
    if number is None:
        return None
    reason, remedy = _REASONS[number]
    return f"{reason}. {remedy}, or choose another place."


def interruption(error: BaseException) -> BaseException | None:
    """Ctrl-C or a request to end that a library made an error of its own of; None when there was none."""
    return next((one for one in _chain(error) if isinstance(one, KeyboardInterrupt | SystemExit)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it: causes, contexts, and what torch collects of several processes."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        failures = getattr(one, "failures", None)
        if isinstance(failures, dict):
            waiting += [pair[0] for pair in failures.values()]
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says about writing ``path`` into a ConfigError, whoever was writing.

    Ctrl-C is never taken for the disk, whatever a library made of it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except FewstepError:
        raise
    except Exception as error:
        stopped, reason = interruption(error), disk_reason(error)
        if stopped is not None:
            raise stopped from error
        if reason is None and isinstance(error, SafetensorError):
            reason = f"{error}. Free some space, or choose another place."
        if reason is None:
            raise
        raise ConfigError(f"{path} cannot be written: {reason}") from error


def unfinished_name(name: str) -> str:
    """What :func:`whole_file` calls a file until it is whole."""
    return f".{name}.unfinished"


@contextmanager
def whole_file(path: Path, *, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """A place beside ``path`` to write the file at; it is renamed when it is whole, and removed when it is not.

    Whoever writes it, others may read it as any new file of this process: safetensors would keep it to its owner.

    Args:
        path: The file; what stands there stays until the new one is whole.
        durable: Bring the content to the disk before it gets the name: else a power failure can leave an empty file.
        shared: Several processes may write it at once; the last one wins.
    """
    unfinished = path.with_name(unfinished_name(path.name) + f"-{os.getpid()}" * shared)
    try:
        unfinished.touch()
        ordinary = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(ordinary)
        if durable:
            fsync(unfinished)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


@contextmanager
def whole_folder(path: Path, *, doing: str) -> Iterator[Path]:
    """A folder beside ``path`` to fill; it is renamed when it is whole, and removed when it is not.

    Others may read its files as any new file of this process, as with :func:`whole_file`.

    Args:
        path: Where it goes: nothing, or an empty folder.
        doing: What is going on, for who finds the hidden folder meanwhile: ``exporting``.
    """
    if path.name in ("", ".."):  # nothing can be renamed to the place where one stands
        path = path.resolve()
    unfinished = path.parent / f".{doing}-{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        unfinished.mkdir(parents=True)
        ordinary = unfinished.stat().st_mode & 0o666
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(ordinary)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fsync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text, whole or not at all: what stood there stays until the new one does."""
    with explain_write_errors(path), whole_file(path, durable=durable) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write plain data, whole or not at all, and bring it to the disk."""
    write_text(path, f"{json.dumps(value, indent=2, ensure_ascii=False)}\n", durable=True)


def user_cache(name: str) -> Path:
    """The folder of one kind of thing that is kept for the user beside all runs, and can be made again."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "fewstep" / name
