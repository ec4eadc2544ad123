"""What is imported when: quick commands load no torch, and public names appear when they are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

import fewstep

HEAVY = ("torch", "diffusers", "transformers", "numpy", "pydantic")


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


def loaded_after(program: str) -> str:
    return python(f"import sys\n{program}\nprint('LOADED', [name for name in {HEAVY} if name in sys.modules])")


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["recipes"], ["prompts"], ["recipe", "show", "digits"], ["train", "--help"], ["runs", "."]],
)
def test_a_quick_command_loads_no_torch(arguments: list[str]) -> None:
    printed = loaded_after(f"from fewstep.cli.main import execute\nassert execute({arguments}) == 0")
    loaded = printed.rpartition("LOADED ")[2]
    assert "torch" not in loaded
    assert "diffusers" not in loaded


def test_the_second_plan_of_a_recipe_loads_no_model_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    libraries = ("diffusers", "transformers", "peft", "scipy", "sympy", "torch._dynamo")
    program = (
        "import sys\nfrom fewstep.cli.main import execute\nassert execute(['plan', 'sana-600m', '--json']) == 0\n"
        f"print('LOADED', [name for name in {libraries} if name in sys.modules])"
    )
    first, second = (python(program).partition("LOADED ") for _ in range(2))
    assert first[0] == second[0]
    assert second[2] == "[]\n"


def test_a_picture_needs_no_statistics_and_gets_them_where_they_are_asked_for(tmp_path: Path) -> None:
    words = ["sample", "fewstep:digits", "--steps", "1", "--prompt", "a red three", "--output", str(tmp_path / "a.png")]
    program = (
        f"import sys\nsys.argv = ['fewstep', *{words}]\nfrom fewstep.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "libraries = ('scipy.special', 'scipy.linalg', 'scipy.sparse', 'gradio', 'pandas', 'sklearn', 'matplotlib')\n"
        "print('LOADED', [name for name in libraries if name in sys.modules])\n"
        "import scipy.stats\n"
        "from transformers.loss.loss_for_object_detection import linear_sum_assignment\n"
        "rows, columns = linear_sum_assignment([[4, 1], [2, 3]])\n"
        "print(rows, columns, round(scipy.stats.beta.ppf(0.5, 2, 2), 6))"
    )
    assert python(program).partition("LOADED ")[2] == "[]\n[0 1] [1 0] 0.5\n"


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import fewstep, fewstep.config") == "LOADED []\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fewstep", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fewstep {fewstep.__version__}\n"


@pytest.mark.parametrize("name", [name for name in fewstep.__all__ if name != "__version__"])
def test_a_public_name_is_a_documented_function(name: str) -> None:
    function = getattr(fewstep, name)
    assert callable(function)
    assert function.__doc__


def test_a_public_name_wins_over_the_subpackage_of_that_name() -> None:
    program = "import fewstep.export.export, fewstep\nprint(fewstep.export.__name__, fewstep.export.__module__)"
    assert python(program) == "export fewstep.export.export\n"


def test_a_name_that_is_not_public_lists_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'distil'; its public names are .*train"):
        fewstep.distil  # noqa: B018 (asked for its error)


def test_the_public_names_are_listed() -> None:
    assert dir(fewstep) == sorted(fewstep.__all__)
