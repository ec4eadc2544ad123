"""The two commands at the top of the README: what they do before anything is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that make looks at, without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def pretend_installed(folder: Path) -> None:
    """An environment as an earlier make left it."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", "installed", "installed-dev"):
        (folder / ".venv" / name).touch()


@pytest.mark.parametrize("python", ["/bin/false", "no-such-python"])
def test_a_python_that_is_too_old_or_missing_is_told_in_a_sentence(clone: Path, python: str) -> None:
    done = make(clone, "demo", f"PYTHON={python}")
    assert done.returncode == 2
    assert f"fewstep needs Python 3.11 or newer, but '{python}' is older or is not there" in done.stderr
    assert "make PYTHON=python3.12 demo" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(("target", "extra"), [("demo", "."), ("test", "'.[dev]'")])
def test_a_first_call_installs_from_the_constraints(clone: Path, target: str, extra: str) -> None:
    steps = make(clone, "--dry-run", target).stdout
    assert f"-m pip install --quiet --constraint constraints.txt --editable {extra}\n" in steps


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_second_call_installs_nothing(clone: Path, target: str) -> None:
    pretend_installed(clone)
    assert "pip" not in make(clone, "--dry-run", target).stdout


def test_changed_constraints_install_again(clone: Path) -> None:
    pretend_installed(clone)
    later = (clone / ".venv" / "installed").stat().st_mtime + 10
    subprocess.run(["touch", "-d", f"@{later}", "constraints.txt"], cwd=clone, check=True)
    assert "pip install" in make(clone, "--dry-run", "demo").stdout


def test_the_fast_tier_leaves_the_slow_tests_out_and_the_slow_tier_has_them(clone: Path) -> None:
    pretend_installed(clone)
    assert '-m pytest -m "not slow"' in make(clone, "--dry-run", "test").stdout
    slow = make(clone, "--dry-run", "test-all").stdout
    assert '-m pytest -m "not slow"' in slow
    assert "-m pytest -m slow" in slow


def test_other_processors_are_tried_with_the_settings_and_threads_that_are_asked(clone: Path) -> None:
    pretend_installed(clone)
    steps = make(clone, "--dry-run", "test-portable", "SETTINGS=oldest", "THREADS=2").stdout
    assert "-m tests.portable oldest --threads 2" in steps


def test_the_fast_tier_checks_format_and_types(clone: Path) -> None:
    pretend_installed(clone)
    steps = make(clone, "--dry-run", "test").stdout
    for step in ("ruff check .", "ruff format --check .", "/mypy"):
        assert step in steps


def test_constraints_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [pin for pin in pins if pin.count("==") != 1 or "+" in pin or "/" in pin or "@" in pin] == []
