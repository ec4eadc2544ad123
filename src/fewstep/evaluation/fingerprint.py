"""Short names of content: of a folder, a file or a repository."""

import hashlib
import os
from pathlib import Path

from fewstep.seals import seal


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
