"""Every test runs offline and on one thread, so that numbers repeat and no test waits for a network."""

import gc
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# tests/portable.py asks for more: the numbers must hold with any number
os.environ.setdefault("FEWSTEP_TEST_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", os.environ["FEWSTEP_TEST_THREADS"])
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# libraries and thousands of tests are objects that stay: going through them again and again is a fifth of collecting
gc.set_threshold(50_000)
torch.set_num_threads(int(os.environ["FEWSTEP_TEST_THREADS"]))
# random cases are the same on every machine, and shared machines have no reliable clock
settings.register_profile("fewstep", deadline=None, derandomize=True)
settings.load_profile("fewstep")
# the shapes in the signatures are checked here and cost nothing elsewhere
install_import_hook(["fewstep.core", "fewstep.methods"], "beartype.beartype")

# what compares numbers that were computed: what another processor could round to another verdict
COMPARES = re.compile(
    r"closeness|conformance\(|approx\(|assert_close|allclose|torch\.equal|assert_same|\b(max|norm|mean)\(\) <"
)


@cache
def is_numeric(module: Path) -> bool:
    """Whether the tests of a file compare computed numbers."""
    return COMPARES.search(module.read_text(encoding="utf-8")) is not None


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of the tiny run and, in ``whole``, that run; tests write beside it, never into it."""
    from tests.training.tiny_run import recipe, run

    folder = tmp_path_factory.mktemp("finished")
    run(recipe(folder), folder / "whole")
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Mapping[str, str]], Path]:
    """Put a distribution on the path as an installer would: its name, its entry_points.txt, its files by path."""

    def put(name: str, entry_points: str, files: Mapping[str, str]) -> Path:
        folder = tmp_path / "site" / name
        own = {
            f"{name.replace('-', '_')}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{name.replace('-', '_')}-1.0.dist-info/entry_points.txt": entry_points,
        }
        for path, text in {**own, **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            monkeypatch.delitem(sys.modules, path.partition("/")[0].removesuffix(".py"), raising=False)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    return put


def pytest_collection_finish() -> None:
    """Leave what has been imported and collected out of every later look for garbage."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a numeric file."""
    for item in items:
        if is_numeric(item.path):
            item.add_marker(pytest.mark.numeric)
