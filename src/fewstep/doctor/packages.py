"""Python and the packages: what is installed, and whether it is what fewstep declares that it needs."""

import platform
from collections.abc import Iterator
from importlib import import_module, metadata

from packaging.requirements import Requirement

import fewstep
from fewstep.doctor.line import Line
from fewstep.errors import shown

EXTRAS = {
    "eval": "prompt sets of the hub and text in pictures, for fewstep evaluate",
    "hub": "prompts from a dataset of the hub",
    "parquet": "prompts from parquet files",
    "quantised": "a frozen base in 8 or 4 bits",
    "tensorboard": "curves of a run in TensorBoard",
    "testing": "the conformance suite for a backbone of one's own",
    "tracking": "figures of a run in TensorBoard, trackio or Weights & Biases",
    "ui": "fewstep ui, in a browser",
}
"""What an extra serves. That for work on fewstep itself is not here."""

_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def packages() -> Iterator[Line]:
    """Versions of everything that is imported."""
    yield Line("fewstep", f"{fewstep.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in _LIBRARIES:
        yield _imported(name)
    try:
        declared = [Requirement(line) for line in metadata.requires("fewstep") or ()]
    except metadata.PackageNotFoundError:
        yield Line("packages", "fewstep runs from its source, so nothing says what it needs", "pip install .")
        return
    needed = [found for found in declared if _asked_by(found, "")]
    wrong = [line for found in needed if (line := _misfit(found)) is not None]
    yield from wrong or [Line("packages", f"all {len(needed)} that are needed, in versions that fit")]
    for extra in metadata.metadata("fewstep").get_all("Provides-Extra", ()):
        if extra in EXTRAS:
            yield _extra(extra, [found for found in declared if _asked_by(found, extra) and found not in needed])


def _imported(name: str) -> Line:
    """Whether a library can be imported at all: a build for another machine fails only then."""
    try:
        import_module(name)
    except (ImportError, OSError) as error:
        said = shown(" ".join(str(error).split()), 200, quoted=False)
        cure = f"pip install --force-reinstall {name}, in the build for this machine"
        return Line(name, f"cannot be imported ({said})", cure, broken=True)
    return Line(name, _version(name) or "of unknown version")


def _asked_by(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _misfit(requirement: Requirement) -> Line | None:
    """What is wrong with one package, or None."""
    version = _version(requirement.name)
    if version is not None and requirement.specifier.contains(version, prereleases=True):
        return None
    found = "is not installed" if version is None else f"is {version}, and fewstep needs {requirement.specifier}"
    return Line(requirement.name, found, f"pip install '{requirement.name}{requirement.specifier}'", broken=True)


def _extra(extra: str, asked: list[Requirement]) -> Line:
    wrong = [found.name for found in asked if _misfit(found) is not None]
    about, what = f"extra {extra}", EXTRAS[extra]
    if wrong:
        return Line(about, f"without {', '.join(wrong)} ({what})", f"pip install 'fewstep[{extra}]'")
    return Line(about, what)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
