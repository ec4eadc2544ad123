"""Pickles of a few bytes that take for ever, or all of the memory, to load."""

import io
import zipfile

_INDEX = b"ctorch.distributed.checkpoint.metadata\n"


def _doubled(times: int, start: bytes = b"K\1K\1") -> bytes:
    """A tuple that holds the tuple before it twice, so many times: 2**times parts."""
    text = start + b"\x86q\0"
    for number in range(times):
        text += b"h" + bytes([number]) + b"\x86q" + bytes([number + 1])
    return text


def _filled(number: int) -> bytes:
    """An object whose state is the object before it, twice."""
    before = b"h" + bytes([number - 1])
    return b"h" + bytes([number]) + b"}X\3\0\0\0fqn" + before + before + b"\x86sb"


BOMBS: dict[str, bytes] = {
    "a key of 2**60 parts": b"\x80\2}" + _doubled(60) + b"Ns.",
    "an argument of 2**60 parts": b"\x80\2ctorch.serialization\n_get_layout\n" + _doubled(60) + b"\x85R.",
    "a member of a set of 2**60 parts": b"\x80\4\x8f(" + _doubled(60) + b"\x90.",
    "a key 100,000 deep": b"\x80\2}N" + b"\x85" * 99_000 + b"Ns.",
    "a key of objects that are filled later": b"\x80\2]("
    + b"".join(_INDEX + b"MetadataIndex\n)\x81q" + bytes([number]) for number in range(60))
    + b"e("
    + b"".join(_filled(number) for number in range(1, 60))
    + b"e}h\x3bNs.",
    "a memo of 2**31 entries": b"\x80\2Nr\xff\xff\xff\x7f.",
    "a text of 4 GiB": b"\x80\2X\xff\xff\xff\xffabc.",
    "a class that is changed": b"\x80\2" + _INDEX + b"Metadata\nN}X\1\0\0\0aNs\x86b.",
    "itself": b"\x80\2]q\0h\0a.",
    "no end": b"\x80\2" + b"N" * 100,
    "nothing to work on": b"\x80\2sss.",
}

REPEATED = {
    name: b"\x80\2" + code * 1_000_000
    for name, code in (
        *{"mark": b"(", "list": b"]", "null": b"N", "tuple": b"N\x85", "copy": b"N2", "drop": b"N0"}.items(),
        *{"nested list": b"](", "remembered": b"Nq\0", "version": b"\x80\2"}.items(),
    )
}


def with_pickle(archive: bytes, content: bytes) -> bytes:
    """A zip file of weights with another pickle."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return changed.getvalue()
