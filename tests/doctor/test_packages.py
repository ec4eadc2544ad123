"""Packages that are too old, missing or broken, really put on the path."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fewstep.doctor.line import Line
from fewstep.doctor.packages import EXTRAS, packages

ROOT = Path(__file__).parents[2]
Install = Callable[[str, str, Mapping[str, str]], Path]


def lines() -> dict[str, Line]:
    return {line.about: line for line in packages()}


def say_needs(install: Install, *needs: str) -> None:
    """Let an installed fewstep say that it needs these."""
    head = "Metadata-Version: 2.1\nName: fewstep\nVersion: 1.0\nProvides-Extra: eval\nProvides-Extra: dev\n"
    text = head + "".join(f"Requires-Dist: {need}\n" for need in needs)
    install("fewstep", "", {"fewstep-1.0.dist-info/METADATA": text})


def test_the_libraries_are_told_with_their_versions() -> None:
    import diffusers

    assert lines()["diffusers"].found == diffusers.__version__


def test_a_package_that_is_too_old_is_broken(install: Install) -> None:
    say_needs(install, "old-thing>=2.0")
    install("old-thing", "", {})
    line = lines()["old-thing"]
    assert (line.state, line.found) == ("broken", "is 1.0, and fewstep needs >=2.0")
    assert line.fix == "pip install 'old-thing>=2.0'"


def test_a_package_that_is_missing_is_broken(install: Install) -> None:
    say_needs(install, "nowhere-at-all>=3")
    assert lines()["nowhere-at-all"] == Line(
        "nowhere-at-all", "is not installed", "pip install 'nowhere-at-all>=3'", broken=True
    )


def test_an_extra_without_its_packages_is_a_note(install: Install) -> None:
    say_needs(install, 'nowhere-at-all>=3; extra == "eval"', 'nothing-there; extra == "dev"')
    found = lines()
    assert found["packages"].state == "fine"
    assert found["extra eval"].state == "note"
    assert found["extra eval"].found.startswith("without nowhere-at-all (prompt sets")
    assert found["extra eval"].fix == "pip install 'fewstep[eval]'"
    assert "extra dev" not in found


def test_an_extra_with_its_packages_is_fine(install: Install) -> None:
    say_needs(install, 'there>=0.5; extra == "eval"')
    install("there", "", {})
    assert lines()["extra eval"].state == "fine"


def test_every_extra_for_users_says_what_it_serves() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"].keys() - {"dev"} <= EXTRAS.keys()


@pytest.mark.parametrize("library", ["torch", "peft"])
def test_a_library_that_cannot_be_imported_is_told_without_a_traceback(library: str, tmp_path: Path) -> None:
    (tmp_path / f"{library}.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['fewstep', 'doctor']; "
        "from fewstep.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"broken  {library}: cannot be imported (libcudart.so.12: cannot open shared object file)" in done.stdout
    assert f"pip install --force-reinstall {library}" in done.stdout
    assert "Traceback" not in done.stderr
    assert "self-test" not in done.stdout  # nothing else can be tried
