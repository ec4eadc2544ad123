"""What made a run: versions, the git revision of the code, the machine."""

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import fewstep

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pydantic")


def provenance() -> dict[str, Any]:
    """Plain data that says which code and which libraries are running."""
    return {
        "fewstep": fewstep.__version__,
        "git": git_revision(Path(fewstep.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def git_revision(package: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``package`` belongs to, and whether tracked files differ from it.

    None for an installed package: a virtual environment inside somebody's repository is not part of it.
    """
    if shutil.which("git") is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    revision = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return None if revision is None else {"revision": revision, "changed": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None when it refuses."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
