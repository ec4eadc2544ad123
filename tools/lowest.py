"""The lowest versions that pyproject.toml allows, as constraints for pip: `make test-lowest` installs and tests them.

python -m tools.lowest [EXTRA ...] [--keep PACKAGE ...]
"""

import argparse
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_BOUND = re.compile(r"([A-Za-z0-9._-]+)>=([0-9][\w.]*)")


def lowest(project: Path, *, extras: Collection[str] = (), keep: Collection[str] = ()) -> Iterator[str]:
    """Give a pin for every package that a project asks for.

    Args:
        project: Folder with pyproject.toml and constraints.txt.
        extras: Whose packages come with the project's own.
        keep: Packages that stay at the version of constraints.txt.

    Yields:
        Lines such as ``numpy==2.0``.

    Raises:
        ValueError: A requirement is not of the form ``name>=version``, or an extra does not exist.
    """
    said = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = said["optional-dependencies"]
    if unknown := set(extras) - offered.keys():
        raise ValueError(f"There is no extra {', '.join(sorted(unknown))}; there are {', '.join(offered)}.")
    pinned = dict(
        line.split("==") for line in (project / "constraints.txt").read_text(encoding="utf-8").split() if "==" in line
    )
    for line in [*said["dependencies"], *(line for extra in extras for line in offered[extra])]:
        match = _BOUND.fullmatch(line)
        if match is None:
            raise ValueError(f"{line} in pyproject.toml has no lower bound; write it as NAME>=VERSION.")
        name, version = match.groups()
        yield f"{name}=={pinned[name] if name in keep else version}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the pins."""
    parser = argparse.ArgumentParser(description="Print the lowest versions that pyproject.toml allows.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument(
        "--keep", nargs="*", default=[], metavar="PACKAGE", help="leave at the version of constraints.txt"
    )
    asked = parser.parse_args(arguments)
    print("\n".join(lowest(_ROOT, extras=asked.extras, keep=asked.keep)))


if __name__ == "__main__":
    main()
