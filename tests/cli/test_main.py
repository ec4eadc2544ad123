"""Exit codes, and what reaches the terminal when something goes wrong."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

import fewstep
from fewstep.cli import app, main
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError, ConfigError, NonFiniteError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failing_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Run a command whose work ends in ``error``."""

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise error

    monkeypatch.setattr("fewstep.training.run.train", fail)
    return execute(["train", "digits"])


def test_the_version_is_printed_and_the_exit_code_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"fewstep {fewstep.__version__}\n"


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([]) == 0
    printed = capsys.readouterr().out
    for command in ("train", "export", "sample", "evaluate", "demo", "recipes", "recipe"):
        assert re.search(rf"^. {command} ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train"], "Missing argument 'RECIPE'."),
        (["train", "digits", "--bogus"], "No such option: --bogus"),
        (["sample", "x", "--output", "y.png", "--steps", "0"], "Invalid value for '--steps'"),
        (["export", "x"], "Missing option '--output'."),
        (["export", "x", "--output", "y", "--dtype", "fp8"], "Invalid value for '--dtype'"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("No."), 2), (CheckpointError("No."), 2), (NonFiniteError("No."), 1)],
)
def test_our_own_errors_are_one_line_and_end_with_their_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing_command(monkeypatch, error) == code
    assert capsys.readouterr().err == "fewstep: No.\n"


def test_anything_else_is_our_defect_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing_command(monkeypatch, ZeroDivisionError("division by zero")) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback (most recent call last):")
    assert "ZeroDivisionError: division by zero" in printed
    assert printed.endswith(
        "fewstep: This is a defect of fewstep, not of what you asked for; please report it with the lines above.\n"
    )


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing_command(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.strip() == "fewstep: Interrupted."


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "there is no space left on the disk. Free some space, or choose another place."),
        (errno.EACCES, "you have no permission to write there. Change the permissions, or choose another place."),
    ],
)
def test_a_full_or_forbidden_disk_is_the_users_error(
    code: int, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing_command(monkeypatch, OSError(code, os.strerror(code), "runs/x")) == 2
    assert capsys.readouterr().err == f"fewstep: runs/x cannot be written or read: {reason}\n"


def test_another_error_of_the_system_is_our_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing_command(monkeypatch, OSError(errno.EBADF, os.strerror(errno.EBADF))) == 1
    assert "This is a defect of fewstep" in capsys.readouterr().err


def test_the_script_leaves_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fewstep", "recipe", "show", "nothing"])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 2


def test_every_command_says_what_it_does() -> None:
    assert all(command.callback is not None and command.callback.__doc__ for command in app.app.registered_commands)
