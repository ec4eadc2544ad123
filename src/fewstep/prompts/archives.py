"""The text half of a webdataset: ``NAME.txt`` and ``NAME.json`` inside a tar file, read in place, never unpacked."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from fewstep.errors import ConfigError, shown
from fewstep.files import UnreadableError, parse_json
from fewstep.prompts.lines import decoded, opened

TEXT = "txt"
"""The column that ``.txt`` members are; those of ``.json`` members are the columns of their object."""
_MAX_MEMBER_BYTES = 2**20
_PARTS = (".txt", ".json")

_Sample = tuple[str, dict[str, Any]]


class _Bounded:
    """A file of which a header cannot ask for more than a member may have, whatever size it states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_MEMBER_BYTES:
            raise tarfile.ReadError(f"a header states a size of {size} bytes")
        return self._file.read(size)


def samples(path: Path) -> Iterator[_Sample]:
    """Each sample's place and columns, from members that stand one behind the other under one name.

    Raises:
        ConfigError: The file is no tar file, or a member is too large, no UTF-8 or no JSON object.
    """
    key, columns = None, dict[str, Any]()
    for name, suffix, content in _members(path):
        if name != key:
            if key is not None and columns:
                yield _place(key, path), columns
            key, columns = name, {}
        columns |= _columns(suffix, content, _place(name + suffix, path))
    if key is not None and columns:
        yield _place(key, path), columns


def _place(name: str, path: Path) -> str:
    return f"{shown(name, quoted=False)} in {path}"


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    with opened(path) as file:
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Bounded(file)), mode="r:") as archive:
                before = -1
                while (member := archive.next()) is not None:
                    if archive.offset <= before:
                        raise tarfile.ReadError("a header points backwards")
                    before = archive.offset
                    archive.members = []  # type: ignore[attr-defined]  # else it remembers every member of every shard
                    found = _text_of(archive, member, path)
                    if found is not None:
                        yield found
        except ConfigError:
            raise
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"The prompt file {path} is no sound tar file ({shown(str(error), quoted=False)}); get it again, "
                "uncompressed."
            ) from error


def _text_of(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> tuple[str, str, bytes] | None:
    """A member's name up to its first dot, its suffix and its content; None for pictures and everything else."""
    folder, slash, file_name = member.name.rpartition("/")
    stem, dot, suffix = file_name.partition(".")
    if not member.isreg() or f".{suffix}" not in _PARTS:
        return None
    if member.size > _MAX_MEMBER_BYTES:
        raise ConfigError(
            f"{_place(member.name, path)} has {member.size} bytes; the text of a sample has at most "
            f"{_MAX_MEMBER_BYTES}."
        )
    content = archive.extractfile(member)
    return f"{folder}{slash}{stem}", dot + suffix, content.read() if content is not None else b""


def _columns(suffix: str, content: bytes, place: str) -> dict[str, Any]:
    if suffix == ".txt":
        return {TEXT: decoded(content, place)}
    try:
        return parse_json(content, dict[str, Any])
    except UnreadableError as error:
        raise ConfigError(f"{place} cannot be used: {error}.") from error
