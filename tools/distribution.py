"""What a built package holds: everything that it needs, and nothing of where it was made. `make package` asks.

python -m tools.distribution FOLDER
"""

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_BESIDE = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "PKG-INFO", "setup.cfg", "MANIFEST.in")
_FIELDS = ("License-Expression: Apache-2.0", "License-File: LICENSE", "License-File: NOTICE", "Requires-Python: >=3.11")
# folders of people and of machines
_PLACE = re.compile(rb"/(?:home|Users|root|tmp)/[\w.-]+/")


def problems(folder: Path) -> list[str]:
    """Compare the one wheel and the one source archive in a folder with the source.

    Returns:
        A sentence for each thing that is missing, that should not be there or that names a machine's folder.
    """
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    package = {path.relative_to(_ROOT / "src").as_posix(): path.read_bytes() for path in _source_files()}
    built = dict(_wheel_files(wheel))
    info = f"{wheel.name.split('-py3')[0]}.dist-info"
    ours = {name: content for name, content in built.items() if not name.startswith(f"{info}/")}
    packed = dict(_archive_files(archive))
    told = built[f"{info}/METADATA"].decode()
    found = [f"{wheel.name} lacks {name}" for name in package if ours.get(name) != package[name]]
    found += [f"{wheel.name} holds {name}, which is not of the package" for name in ours.keys() - package.keys()]
    found += [f"{wheel.name} does not say '{field}'" for field in _FIELDS if f"\n{field}\n" not in told]
    found += [f"{wheel.name} lacks {name}" for name in ("LICENSE", "NOTICE") if f"{info}/licenses/{name}" not in built]
    found += [f"{archive.name} lacks src/{name}" for name in package if packed.get(f"src/{name}") != package[name]]
    found += [f"{archive.name} lacks {name}" for name in _BESIDE[:4] if name not in packed]
    found += [f"{archive.name} holds {name}" for name in packed if not name.startswith("src/") and name not in _BESIDE]
    both = {**{f"{archive.name}: {name}": content for name, content in packed.items()}, **built}
    found += [f"{name} names a folder of a machine" for name, content in both.items() if _PLACE.search(content)]
    return found


def _source_files() -> Iterator[Path]:
    for path in (_ROOT / "src" / "fewstep").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _wheel_files(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            yield name, wheel.read(name)


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Files without the folder that they all are in."""
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            opened = archive.extractfile(member)
            if opened is not None and ".egg-info/" not in member.name:
                yield member.name.partition("/")[2], opened.read()


def main() -> None:
    """Print what is wrong, and end with 1 if anything is."""
    found = problems(Path(sys.argv[1]))
    print("\n".join(found) or f"{sys.argv[1]} holds the whole package and nothing else.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
