"""Which code made a run."""

import subprocess
from pathlib import Path

import pytest

from fewstep.runs.provenance import git_revision


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return package


def test_a_checkout_names_its_commit(package: Path) -> None:
    assert git_revision(package) == {"revision": git(package, "rev-parse", "HEAD"), "changed": False}


def test_a_changed_checkout_says_so(package: Path) -> None:
    (package / "__init__.py").write_text("changed = True\n")
    assert git_revision(package) == {"revision": git(package, "rev-parse", "HEAD"), "changed": True}


def test_a_package_installed_inside_somebody_elses_repository_is_not_part_of_it(package: Path) -> None:
    installed = package.parent / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_revision(installed) is None


def test_a_package_outside_any_repository_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert git_revision(tmp_path) is None
