"""A built package is looked through: what is missing, what should not be there, what names a machine."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools.distribution import problems

ROOT = Path(__file__).parents[2]
INFO = "fewstep-1.0.dist-info"
METADATA = (
    "Metadata-Version: 2.4\nName: fewstep\nRequires-Python: >=3.11\nLicense-Expression: Apache-2.0\n"
    "License-File: LICENSE\nLicense-File: NOTICE\n"
)


def package() -> dict[str, bytes]:
    source = ROOT / "src"
    found = (path for path in (source / "fewstep").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in found}


def build(folder: Path, wheel: dict[str, bytes | None], archive: dict[str, bytes | None]) -> Path:
    """A right pair of files with these changed, added or, where None, left out."""
    beside = {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/licenses/LICENSE": b"", f"{INFO}/licenses/NOTICE": b""}
    with zipfile.ZipFile(folder / "fewstep-1.0-py3-none-any.whl", "w") as packed:
        for name, content in {**package(), **beside, **wheel}.items():
            if content is not None:
                packed.writestr(name, content)
    described = dict.fromkeys(("pyproject.toml", "README.md", "LICENSE", "NOTICE", "PKG-INFO"), b"")
    sources = {f"src/{name}": content for name, content in package().items()}
    with tarfile.open(folder / "fewstep-1.0.tar.gz", "w:gz", compresslevel=0) as packed_too:
        for name, content in {**sources, **described, **archive}.items():
            if content is not None:
                member = tarfile.TarInfo(f"fewstep-1.0/{name}")
                member.size = len(content)
                packed_too.addfile(member, io.BytesIO(content))
    return folder


def test_a_whole_package_has_no_problems(tmp_path: Path) -> None:
    assert problems(build(tmp_path, {}, {})) == []


@pytest.mark.parametrize(
    ("wheel", "archive", "said"),
    [
        ({"fewstep/py.typed": None}, {}, "whl lacks fewstep/py.typed"),
        ({"fewstep/py.typed": b"other"}, {}, "whl lacks fewstep/py.typed"),
        ({"tests/test_it.py": b""}, {}, "whl holds tests/test_it.py, which is not of the package"),
        ({f"{INFO}/licenses/NOTICE": None}, {}, "whl lacks NOTICE"),
        ({f"{INFO}/METADATA": b"Name: fewstep\n"}, {}, "whl does not say 'License-File: LICENSE'"),
        ({f"{INFO}/RECORD": b"/home/" + b"ada/fewstep"}, {}, f"{INFO}/RECORD names a folder of a machine"),
        ({}, {"src/fewstep/recipes/digits.yaml": None}, "gz lacks src/fewstep/recipes/digits.yaml"),
        ({}, {"NOTICE": None}, "gz lacks NOTICE"),
        ({}, {"tests/test_it.py": b""}, "gz holds tests/test_it.py"),
    ],
)
def test_what_is_wrong_with_a_package_is_told(
    wheel: dict[str, bytes | None], archive: dict[str, bytes | None], said: str, tmp_path: Path
) -> None:
    assert any(line.endswith(said) for line in problems(build(tmp_path, wheel, archive)))
