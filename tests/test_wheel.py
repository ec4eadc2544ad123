"""The wheel alone, in an empty environment: what a user gets who never sees the source."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fewstep

ROOT = Path(__file__).parents[1]
FIGURES = {"fd", "kd", "accuracy", "precision", "recall", "density", "coverage", "diversity", "tv", "guidance", "n"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``fewstep`` script of an environment that holds the wheel and the constrained packages only."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    call([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    call([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    constraints = str(source / "constraints.txt")
    call([str(python), "-m", "pip", "install", "--quiet", "--constraint", constraints, str(wheel)], folder)
    shutil.rmtree(source)
    return python.with_name("fewstep")


def call(arguments: list[str], folder: Path) -> str:
    """Run a program that sees nothing of the source tree, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_installed_command_knows_its_version(command: Path, tmp_path: Path) -> None:
    assert call([str(command), "--version"], tmp_path) == f"fewstep {fewstep.__version__}\n"


def test_the_recipes_are_in_the_wheel(command: Path, tmp_path: Path) -> None:
    printed = call([str(command), "recipe", "show", "digits", "--resolved"], tmp_path)
    assert "model: fewstep:digits\n" in printed


def test_the_type_marker_is_in_the_wheel(command: Path, tmp_path: Path) -> None:
    program = "from importlib.resources import files; print((files('fewstep') / 'py.typed').is_file())"
    assert call([str(command.with_name("python")), "-c", program], tmp_path) == "True\n"


def test_the_demo_runs_from_the_wheel_and_the_second_time_it_is_quick(command: Path, tmp_path: Path) -> None:
    first, second = (json.loads(call([str(command), "demo", "--json"], tmp_path).splitlines()[-1]) for _ in range(2))
    for row in ("real", "teacher_50", "teacher_4", "student_4"):
        assert first[row].keys() == FIGURES
        assert second[row] == first[row]
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["total_seconds"] < 60
    assert first["peak_mib"] < 3 * 1024
    assert (tmp_path / "runs" / "demo" / "report.html").stat().st_size > 10_000
