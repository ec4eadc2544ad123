"""docs/adding-a-backbone.md, followed literally: every named block is written, every command is run, offline."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-backbone.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Language, file name or nothing, and content of every block of the page, in order."""
    yield from BLOCK.findall(PAGE)


def environment(folder: Path) -> dict[str, str]:
    """The shell of a reader: ``python`` and ``fewstep`` on the path, packages installed where this test may write."""
    commands, site = folder / "bin", folder / "site"
    commands.mkdir()
    # scripts, not links: a link to the interpreter of a virtual environment leaves that environment
    for name, arguments in {"python": "", "fewstep": " -m fewstep"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (commands / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "src")]),
        "HF_HUB_OFFLINE": "1",
        # pip reads its options from here; "no" switches the isolation of builds off, which needs no network then
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "no",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the last command of the page, and everything that was printed."""
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed, and the page installs a package")
    folder = tmp_path_factory.mktemp("reader")
    shell = environment(folder)
    printed = ""
    for language, name, content in blocks():
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        elif language == "sh":
            done = subprocess.run(
                ["sh", "-e", "-c", content], cwd=folder, env=shell, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{content}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
    return folder, printed


def test_every_block_is_a_named_file_or_a_command() -> None:
    assert [language for language, name, _ in blocks() if not name] == ["sh"] * 4
    assert len([name for _, name, _ in blocks() if name]) == 7


@pytest.mark.slow
def test_the_installed_package_serves_the_pipeline(followed: tuple[Path, str]) -> None:
    _, printed = followed
    assert "adapter    auraflow (fewstep_auraflow.AuraFlowAdapter)" in printed
    assert "pipeline   AuraFlowPipeline" in printed
    assert "recipes    auraflow\n" in printed


@pytest.mark.slow
def test_the_adapter_passes_the_suite_and_nothing_is_skipped(followed: tuple[Path, str]) -> None:
    _, printed = followed
    count = re.search(r"^=+ (\d+) passed in ", printed, flags=re.MULTILINE)
    assert count is not None and int(count[1]) > 35


@pytest.mark.slow
def test_two_steps_are_trained(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(f"loss/{name}" in line for line in lines for name in ("ca", "dm", "cdm", "fake_score"))


@pytest.mark.slow
def test_a_picture_is_drawn(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    picture = Image.open(folder / "picture.png")
    assert picture.size == (16, 16)
    assert len(set(picture.convert("L").tobytes())) > 10
