"""One environment with the wheel, and one demo run in it, for all slow tests."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKED = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "constraints.txt")


LONGEST = ("test_wheel.py", "test_spread.py", "test_shipped_rows.py", "test_killed.py", "test_hostile.py")
"""Files that take longest: they come first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is of the slow tier, and the longest files come first."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def call(arguments: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in ``folder`` that sees nothing of the source tree; it must end with 0."""
    hidden = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and the constrained packages only.

    Attributes:
        bin: Its folder of programs.
        work: A folder outside the source tree to work in.
    """

    bin: Path
    work: Path

    def fewstep(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return call([self.bin / "fewstep", *arguments], self.work)

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return call([self.bin / "python", *arguments], self.work)


@dataclass(frozen=True)
class DemoRun:
    """``fewstep demo --json`` in the installed environment.

    Attributes:
        printed: The object on the last line of standard output.
        told: Everything on standard error.
        seconds: From the command to its end.
        output: The demo's folder.
    """

    printed: dict[str, Any]
    told: str
    seconds: float
    output: Path

    @property
    def run(self) -> Path:
        """The folder of the demo's one training run."""
        (folder,) = self.output.glob("digits-*")
        return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKED:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    call([sys.executable, "-m", "build", "--wheel", "--outdir", folder, source], folder)
    (wheel,) = folder.glob("*.whl")
    call([sys.executable, "-m", "venv", folder / "venv"], folder)
    made = Installed(folder / "venv" / "bin", folder / "work")
    made.work.mkdir()
    # a module is compiled when it is first imported: of 16,000, the tests import a quarter
    made.python("-m", "pip", "install", "--quiet", "--no-compile", "--constraint", source / "constraints.txt", wheel)
    shutil.rmtree(source)
    return made


@pytest.fixture(scope="session")
def demo(installed: Installed) -> DemoRun:
    started = time.perf_counter()
    done = installed.fewstep("demo", "--json")
    seconds = time.perf_counter() - started
    printed = json.loads(done.stdout.splitlines()[-1])
    return DemoRun(printed, done.stderr, seconds, installed.work / "runs" / "demo")
