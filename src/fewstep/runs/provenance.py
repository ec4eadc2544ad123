"""What made a run: versions, the git revision of the code, the machine; and the packages that it cannot do without."""

import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import fewstep
from fewstep.backbones.registry import BUILT_IN
from fewstep.errors import ConfigError, shown
from fewstep.methods.terms import Terms
from fewstep.plugins import BACKBONES, TERMS, find, package_of

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


def packages_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Name and version of the package behind every setting that only a package knows, by that setting."""
    found = ((setting, find(group, name, built_in=())) for setting, group, name in _added(settings))
    return {setting: package_of(entry, version=True) for setting, entry in found if entry is not None}


def require_packages(settings: Mapping[str, Any], recorded: Mapping[str, Any], *, place: str) -> None:
    """Find out that a run's package is missing, before its settings are found to be none.

    Args:
        settings: Of the run, as they are read.
        recorded: What :func:`packages_of` said when the run was written.
        place: The run, for messages.

    Raises:
        ConfigError: A package is missing.
    """
    present = packages_of(settings)
    for setting, _, _ in _added(settings):
        if setting in recorded and setting not in present:
            raise ConfigError(
                f"{place} has the setting {shown(setting, quoted=False)} of the package "
                f"{shown(recorded[setting], quoted=False)}, which is not installed; install it to open the run."
            )


def _added(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Setting, group and name of everything that is not built in."""
    backbone, terms = settings.get("backbone"), settings.get("terms")
    kind = backbone.get("kind") if isinstance(backbone, Mapping) else None
    if isinstance(kind, str) and kind not in BUILT_IN:
        yield f"backbone.kind={kind}", BACKBONES, kind
    for name, value in terms.items() if isinstance(terms, Mapping) else ():
        if value is not None and name not in Terms.model_fields:
            yield f"terms.{name}", TERMS, name
