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
PACKED = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")


ENVIRONMENT = "installed"
LONGEST = "test_a_shipped_row_of_the_teacher_is_reproduced_on_its_first_noise_seed[50]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is of the slow tier; one worker makes the environment, and the longest come first."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
        if ENVIRONMENT in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(ENVIRONMENT))
    items.sort(key=lambda item: (item.name != LONGEST, item.get_closest_marker("xdist_group") is None))


def call(arguments: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in ``folder`` that sees nothing of the source tree; it must end with 0."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
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
    made.python("-m", "pip", "install", "--quiet", "--constraint", source / "constraints.txt", wheel)
    shutil.rmtree(source)
    return made


@pytest.fixture(scope="session")
def demo(installed: Installed) -> DemoRun:
    started = time.perf_counter()
    done = installed.fewstep("demo", "--json")
    seconds = time.perf_counter() - started
    printed = json.loads(done.stdout.splitlines()[-1])
    return DemoRun(printed, done.stderr, seconds, installed.work / "runs" / "demo")
