"""Pickles of others, measured before they are loaded: one of a hundred bytes can keep a machine busy for ever.

A tuple that holds the tuple before it twice is small in a file and in memory, and hashing the sixtieth never ends; a
high number in the memo makes room for all below it. Here a pickle is walked without making anything, and refused where
a value that will be hashed, or given to a call, has more parts than any that belongs to weights or to a checkpoint.
"""

import mmap
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

_MAX_HASHED = 1000
"""Parts of a key or of the arguments of a call; those of a tensor have about 30."""
_MAX_TUPLE = 100_000
_MAX_STACK = 100_000
_MAX_NESTING = 100
_LEGACY_PICKLES = 5
"""In files that are no zip files: a number, a version, the system, the weights, names of storages."""

_PLAIN = {
    **dict.fromkeys((b"N", b"\x88", b"\x89", b")"), 0),  # null, true, false, ()
    **{b"J": 4, b"K": 1, b"M": 2, b"G": 8},  # numbers
}
"""What pushes a plain value, with the bytes that follow."""
_COUNTED = {b"\x8a": 1, b"\x8c": 1, b"X": 4, b"\x8d": 8, b"C": 1, b"B": 4, b"U": 1, b"T": 4}
"""Whole numbers, texts and bytes: how many bytes say how long they are."""
_MADE = (b"]", b"}", b"\x8f")
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": 1, b"r": 4}
_GETS = {b"h": 1, b"j": 4}
_CODES = {
    code[0]: code
    for code in (
        *(*_PLAIN, *_COUNTED, *_MADE, *_TUPLES, *_PUTS, *_GETS),
        *(b"\x80", b"\x95", b".", b"(", b"t", b"\x94", b"c", b"\x93", b"R", b"\x81", b"b", b"Q"),
        *(b"a", b"e", b"s", b"u", b"\x90"),
    )
}


class _Value:
    """A value in parts, each counted as often as it occurs."""

    __slots__ = ("parts", "referred")

    def __init__(self, parts: int) -> None:
        self.parts, self.referred = parts, False

    def grow(self, more: int) -> None:
        if self is _ONE or self.referred:  # else what holds it already would have been counted too small
            raise UnpicklingError("it changes what it has used before, as no checkpoint needs")
        self.parts += more


_ONE = _Value(1)


def require_tame(content: bytes | mmap.mmap, start: int = 0) -> int:
    """Walk one pickle, and return where it ends.

    Raises:
        pickle.UnpicklingError: It would take a time or a memory that its size does not tell, or it is no pickle.
    """
    try:
        return _Walk(content, start).end()
    except (IndexError, KeyError, ValueError) as error:
        raise UnpicklingError("it is damaged") from error


class _Walk:
    def __init__(self, content: bytes | mmap.mmap, start: int) -> None:
        self._content, self._place = content, start
        self._stack: list[_Value] = []
        self._marks: list[list[_Value]] = []
        self._memo: dict[int, _Value] = {}

    def end(self) -> int:
        while (code := _CODES.get(self._content[self._place])) != b".":
            self._place += 1
            if code is None:
                raise UnpicklingError("it holds an instruction that no checkpoint needs")
            self._step(code)
            if len(self._stack) > _MAX_STACK or len(self._marks) > _MAX_NESTING or self._place > len(self._content):
                raise UnpicklingError("it is nested in a way that no checkpoint needs, or cut short")
        return self._place + 1

    def _step(self, code: bytes) -> None:
        stack = self._stack
        if code in _PLAIN:
            self._place += _PLAIN[code]
            stack.append(_ONE)
        elif code in _COUNTED:
            length = self._number(_COUNTED[code])
            self._place += length
            stack.append(_ONE)
        elif code in _GETS:
            found = self._memo[self._number(_GETS[code])]
            found.referred = True
            stack.append(found)
        elif code in _PUTS:
            self._remember(self._number(_PUTS[code]))
        elif code == b"\x94":
            self._remember(len(self._memo))
        elif code in _MADE:
            stack.append(_Value(1))
        elif code == b"(":
            self._marks.append(stack)
            self._stack = []
        elif code in _TUPLES or code == b"t":
            items = self._popped(_TUPLES[code]) if code in _TUPLES else self._to_mark()
            self._stack.append(_Value(1 + _parts(items, _MAX_TUPLE)))
        elif code in (b"a", b"b"):  # one more item, or the state of an object
            (item,) = self._popped(1)
            stack[-1].grow(item.parts)
        elif code == b"s":
            self._set(self._popped(2))
        elif code in (b"e", b"\x90"):
            items = self._to_mark()
            self._stack[-1].grow(_parts(items, _MAX_HASHED if code == b"\x90" else None))
        elif code == b"u":
            self._set(self._to_mark())
        elif code in (b"R", b"\x81"):  # a call, a new object
            _, arguments = self._popped(2)
            stack.append(_Value(1 + _parts([arguments], _MAX_HASHED)))
        elif code == b"Q":
            stack.append(_Value(_parts(self._popped(1), _MAX_HASHED)))
        elif code == b"\x93":
            self._popped(2)
            stack.append(_ONE)
        elif code == b"c":
            for _ in range(2):
                self._place = self._content.find(b"\n", self._place) + 1 or len(self._content) + 1
            stack.append(_ONE)
        else:  # the version and the length of a frame
            self._place += 1 if code == b"\x80" else 8

    def _number(self, size: int) -> int:
        self._place += size
        return int.from_bytes(self._content[self._place - size : self._place], "little")

    def _remember(self, number: int) -> None:
        if number > 2 * len(self._memo) + 1000:
            raise UnpicklingError("it numbers what it remembers as no checkpoint does")
        self._memo[number] = self._stack[-1]

    def _popped(self, count: int) -> list[_Value]:
        items = self._stack[-count:]
        if len(items) < count:
            raise UnpicklingError("it is damaged")
        del self._stack[-count:]
        return items

    def _to_mark(self) -> list[_Value]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _set(self, items: Sequence[_Value]) -> None:
        for key in items[::2]:
            _parts([key], _MAX_HASHED)
        self._stack[-1].grow(_parts(items))


def _parts(items: Sequence[_Value], limit: int | None = None) -> int:
    """How many parts values have together."""
    found = sum(item.parts for item in items)
    if limit is not None and found > limit:
        raise UnpicklingError(f"it holds a value of {found} parts where no checkpoint has more than {limit}")
    return found


def require_tame_weights(source: Path | IO[bytes]) -> None:
    """Measure what torch will unpickle of a file of weights; a file that is not one is left to torch's own complaint.

    Args:
        source: The file, or one that is open at its beginning, where it is left.

    Raises:
        pickle.UnpicklingError: It would take a time or a memory that its size does not tell.
    """
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        zipped = file.read(4) == b"PK\3\4"
        file.seek(0)
        if zipped:
            with suppress(RuntimeError):
                require_tame(_pickle_in_zip(source))
        elif isinstance(source, Path):
            with suppress(ValueError), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _require_tame_legacy(content)
        else:
            _require_tame_legacy(file.read())
        file.seek(0)


def _pickle_in_zip(source: Path | IO[bytes]) -> bytes:
    """As torch finds it: several may have its name."""
    import torch

    reader = torch._C.PyTorchFileReader(str(source) if isinstance(source, Path) else source)
    content: bytes = reader.get_record("data.pkl")
    return content


def _require_tame_legacy(content: bytes | mmap.mmap) -> None:
    place = 0
    for _ in range(_LEGACY_PICKLES):
        place = require_tame(content, place)
