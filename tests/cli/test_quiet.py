"""No command prints the remarks of a library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = "import logging, warnings; from fewstep.cli.main import _quiet_libraries; _quiet_libraries(); "
COMMANDS = """
from fewstep.cli.main import execute
for words in (
    ["recipes"], ["recipe", "show", "digits"], ["backbones"], ["check", "fewstep:digits"], ["plan", "digits"],
    ["sample", "fewstep:digits", "--prompt", "a red handwritten three", "--steps", "1", "--output", "three.png"],
):
    assert execute(words) == 0, words
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward")
"""


def printed(code: str, folder: Path) -> tuple[str, str]:
    """What a process of its own prints: pytest gives loggers other handlers."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", START + code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("remark", "shown"),
    [
        ("logging.getLogger('bitsandbytes.backends.cpu.ops').warning('Failed to load a kernel')", ""),
        ("logging.getLogger('fewstepping').warning('not ours')", ""),
        ("warnings.warn('will be renamed', FutureWarning)", ""),
        ("logging.getLogger('kernels').error('broken')", "broken\n"),
        ("logging.getLogger('fewstep.data.building').warning('ours')", "ours\n"),
    ],
)
def test_a_library_is_heard_when_something_is_broken_and_we_are_always(tmp_path: Path, remark: str, shown: str) -> None:
    assert printed(remark, tmp_path) == ("", shown)


def test_commands_print_no_line_of_a_library(tmp_path: Path) -> None:
    out, err = printed(COMMANDS, tmp_path)
    assert err == ""
    assert (tmp_path / "three.png").is_file()
    foreign = ("warning", "deprecated", "failed to", "loading ", "it/s")
    assert [line for line in out.lower().splitlines() if any(word in line for word in foreign)] == []
