"""A page of instructions, followed literally: every named block is written, every command is run, offline."""

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page: str) -> Iterator[tuple[str, str, str]]:
    """Language, file name or nothing, and content of every block of a page of docs/, in order."""
    yield from BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


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


def follow(page: str, folder: Path) -> str:
    """Do in ``folder`` what a page says; returns everything that was printed."""
    # asked of the installed packages, not of the import system: looking for the module pip there takes the distutils of
    # setuptools out of this process, and torch.compile needs it
    installed = {found.name for found in importlib.metadata.distributions()}
    for needed in ("pip", "setuptools"):
        if needed not in installed:
            pytest.skip(f"{needed} is not installed, and the page installs a package")
    shell = environment(folder)
    printed = ""
    for language, name, content in blocks(page):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        elif language == "sh":
            done = subprocess.run(
                ["sh", "-e", "-c", content], cwd=folder, env=shell, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{content}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
    return printed
