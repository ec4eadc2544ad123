"""Files whose content somebody wrote down: size and SHA-256, under plain names in one folder.

What is sealed is a regular file inside its folder: a link could lead anywhere. A file is hashed when it is first used;
as long as the system says that nobody touched it since, its hash is known. So is the name of what a folder holds.
"""

import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from fewstep.files import UnreadableError, read_json, whole_file
from fewstep.section import Section

MEMORY = ".hashed.json"
"""In a folder whose files are large: what their hashes were, and what the system said of them then."""
_LINK = "is a symbolic link, which may lead out of the folder"
_SETTLED = 2.0  # seconds: a file changed again within a tick of the clock looks untouched
_Touched = tuple[int, int, int, int]
_hashed: dict[_Touched, str] = {}


class Seal(Section):
    """What a file holds."""

    bytes: Annotated[int, Field(gt=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class BrokenSealError(ValueError):
    """A file is not what was written down: a clause without its subject, such as ``is missing``."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def _is_plain_name(name: object) -> bool:
    """Whether a name stays in its folder, on every system."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name not in (".", "..")
        and name.isprintable()
        and not any(character in name for character in "/\\:")
    )


def _require_plain(name: str) -> str:
    if not _is_plain_name(name):
        raise ValueError("it is not the name of a file in this folder")
    return name


Seals = dict[Annotated[str, AfterValidator(_require_plain)], Seal]
"""Files of one folder by name, as JSON holds them."""


def seal(file: Path, *, max_bytes: int | None = None) -> Seal:
    """What a file holds now.

    Args:
        file: Read to its end, unless its hash is known.
        max_bytes: A larger file is not read: whoever knows what the file should be knows how large that can be.

    Raises:
        BrokenSealError: It is missing, empty, unreadable, too large, or no regular file.
    """
    size, touched = _look(file)
    if max_bytes is not None and size > max_bytes:
        raise BrokenSealError(file, f"holds {size} bytes, more than any file of its kind ({max_bytes} at most)")
    known = _hashed.get(touched)
    if known is None:
        try:
            with file.open("rb") as opened:
                known = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise BrokenSealError(file, f"cannot be read: {error.strerror or error}") from error
        if _is_settled(touched):
            _hashed[touched] = known
    return Seal(bytes=size, sha256=known)


def verify(folder: Path, seals: Mapping[str, Seal], *, share: slice = slice(None), remember: bool = False) -> None:
    """Compare files with their seals: all are there, each holds what it held.

    Args:
        folder: Of the files.
        seals: By name.
        share: Of the files whose content is compared, when several processes divide it; the rest is by size.
        remember: Keep in the folder what was hashed, so that the next process need not.

    Raises:
        BrokenSealError: Of the first file that is not as it was.
    """
    for name, expected in seals.items():
        size, _ = _look(folder / name)
        if size != expected.bytes:
            raise BrokenSealError(folder / name, f"holds {size} bytes instead of {expected.bytes}")
    names = list(seals)[share]
    if remember:
        _recall(folder, names)
    for name in names:
        if seal(folder / name).sha256 != seals[name].sha256:
            raise BrokenSealError(folder / name, "was altered (its SHA-256 differs)")
    if remember:
        _keep(folder, names)


def require_no_links(folder: Path, part: str | None = None) -> None:
    """Raise BrokenSealError for a symbolic link anywhere below ``folder``: what is written there could go anywhere.

    Args:
        folder: May be a link itself: it is the place that somebody asked for.
        part: Of what is in it only this, which may be none.
    """
    top = folder if part is None else folder / part
    below = (Path(path) / name for path, folders, files in os.walk(top) for name in (*folders, *files))
    for path in itertools.chain([] if part is None else [top], below):
        if path.is_symlink():
            raise BrokenSealError(path, _LINK)


def _look(file: Path) -> tuple[int, _Touched]:
    """A file's size, and what changes whenever somebody writes to it or puts another in its place."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        raise BrokenSealError(file, "is missing") from None
    except OSError as error:
        raise BrokenSealError(file, f"cannot be read: {error.strerror or error}") from error
    if stat.S_ISLNK(found.st_mode):
        raise BrokenSealError(file, _LINK)
    if not stat.S_ISREG(found.st_mode):
        raise BrokenSealError(file, "is not a file")
    if found.st_size == 0:
        raise BrokenSealError(file, "is empty")
    # the time of the last change of the inode cannot be set by hand, and no archive brings it along
    return found.st_size, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_settled(touched: _Touched) -> bool:
    return max(touched[2:]) < time.time_ns() - int(_SETTLED * 1e9)


def _recall(folder: Path, names: Iterable[str]) -> None:
    try:
        kept = read_json(folder / MEMORY, dict[str, tuple[int, int, int, int, str]])
    except UnreadableError:
        return  # hashing again is always right
    for name in names:
        if name in kept and _look(folder / name)[1] == kept[name][:4]:
            _hashed.setdefault(kept[name][:4], kept[name][4])


def _keep(folder: Path, names: Iterable[str]) -> None:
    looks = {name: _look(folder / name)[1] for name in names}
    kept = {name: (*touched, _hashed[touched]) for name, touched in looks.items() if touched in _hashed}
    # somebody else's folder: it is hashed again next time
    with suppress(OSError), whole_file(folder / MEMORY, shared=True) as unfinished:
        unfinished.write_text(json.dumps(kept))


def fingerprint(source: str | Path) -> str:
    """Name what ``source`` holds: a hash over every name and all content. A repository id stays itself.

    A process reads a large file once, as long as the system says that nobody touched it since. Links are followed: the
    hub's download cache consists of them, and here they decide a name, not what is used.
    """
    if not os.path.exists(source):
        return str(source)
    path = Path(source)
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    digest = hashlib.sha256()
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        content = seal(file.resolve()).sha256 if file.stat().st_size else "empty"
        digest.update(f"{name}\n{content}\n".encode(errors="surrogateescape"))
    return f"sha256:{digest.hexdigest()[:32]}"
