"""What a command does when its output cannot go where it should: nobody reads it, no disk, no letters for it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# prints more than a pipe's reader asks for, in one piece and line by line, and a command that fails
LONG, SHORT, WRONG = ["evaluate", "metrics", "--markdown"], ["--version"], ["recipe", "show", "nothing"]


def ended(arguments: Sequence[str], stdout: int, stderr: int | None = None) -> tuple[int, str]:
    """The exit code and standard error of a real command."""
    done = subprocess.run(
        [sys.executable, "-m", "fewstep", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE if stderr is None else stderr,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr or ""


@pytest.fixture
def unread() -> int:
    """A pipe whose reader went away."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("arguments", [LONG, SHORT])
def test_output_that_nobody_reads_ends_a_command_in_silence(arguments: list[str], unread: int) -> None:
    assert ended(arguments, unread) == (141, "")


def test_a_complaint_that_nobody_reads_is_the_users_error_all_the_same(unread: int) -> None:
    assert ended(WRONG, subprocess.DEVNULL, unread)[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [LONG, SHORT])
def test_output_to_a_full_disk_is_the_users_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code, said = ended(arguments, full.fileno())
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot be written" in said and "there is no space left on the disk. Free some space" in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_text_that_the_locale_has_no_letters_for_is_printed_escaped(encoding: str, tmp_path: Path) -> None:
    with (tmp_path / "printed").open("wb") as printed:
        done = subprocess.run(
            [sys.executable, "-m", "fewstep", "recipe", "show", "digits", "prompts={kind: file, path: \u65e5.txt}"],
            stdout=printed,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    written = (tmp_path / "printed").read_bytes()
    assert ("\u65e5.txt".encode() if encoding == "utf-8" else rb"\u65e5.txt") in written
