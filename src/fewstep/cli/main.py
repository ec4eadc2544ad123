"""Runs a command and ends with the right exit code.

0 done    2 the user's error, told in a sentence    1 a defect of ours, with its traceback    130 Ctrl-C
143 SIGTERM and 138 SIGUSR1 where there was nothing to save; a training saves, and ends with 0
141 who read the output went away, as in ``fewstep recipes | head -1``: what a shell says of SIGPIPE
"""

import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from fewstep.cli.deferred import defer_modules
from fewstep.cli.ending import end
from fewstep.cli.told import is_first_here
from fewstep.errors import Exit, FewstepError, shown, told_lines
from fewstep.garbage import begin_command
from fewstep.training.signals import EndedError, end_on_signals, raise_lost_signal

_USERS_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
)


def run() -> NoReturn:
    """Entry point of the ``fewstep`` script."""
    end_on_signals()
    _escape_what_cannot_be_printed()
    _quiet_libraries()
    begin_command()
    defer_modules()
    end(execute(sys.argv[1:]))


def _escape_what_cannot_be_printed() -> None:
    """Let prompts and paths be printed whatever the locale is: Latin letters alone on Windows, into a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    """For this process, show our own warnings and the libraries' errors, and nothing else; before they are imported.

    A backend without torchvision, a kernel that bitsandbytes did not find, a function that will be renamed: all these
    are about the libraries. ``python -W`` and ``PYTHONWARNINGS`` show warnings as ever.
    """
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # what writes the records of loggers that nobody gave a handler
    assert logging.lastResort is not None
    logging.lastResort.addFilter(_is_for_the_user)


def _is_for_the_user(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.name.partition(".")[0] == "fewstep"


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is told on stderr."""
    code: int = Exit.OK
    try:
        from fewstep.cli.app import app  # not before the handlers stand: it takes a while

        raise_lost_signal()
        # typer leaves by itself: 0 when done, 2 for a command line it cannot read, 130 for Ctrl-C
        app(list(arguments) or ["--help"], prog_name="fewstep")
    except EndedError as ended:
        if is_first_here():
            _tell(f"Ended by {ended.signal.name}; nothing unfinished is left. Give the same command again.")
        code = 128 + ended.signal
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else Exit.OK
        if isinstance(exit_request.__context__, BrokenPipeError):  # for which typer leaves with 1
            code = Exit.UNREAD
    except FewstepError as error:
        if not error.told:
            _tell(str(error))
        code = error.exit_code
    except KeyboardInterrupt:  # while the commands were imported
        code = Exit.INTERRUPTED
    except Exception as error:
        code = _tell_unexpected(error)
    if code == Exit.INTERRUPTED and is_first_here():
        _tell("Interrupted.")
    return _delivered(code)


def _delivered(code: int) -> int:
    """Write out what was printed; else the interpreter tries it at its very end, complains, and leaves with 120."""
    try:
        if sys.stdout is not None:  # as where it was closed before we began
            sys.stdout.flush()
        if code != Exit.UNREAD:
            return code
    except BrokenPipeError:
        code = Exit.UNREAD
    except OSError as error:
        from fewstep.files import disk_reason

        _tell(f"What was printed cannot be written: {disk_reason(error) or error}")
        code = Exit.USER
    with suppress(OSError):  # what is left goes nowhere, and is not tried again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _tell(sentence: str) -> None:
    with suppress(OSError):  # nobody reads it: the code says it all the same
        print("\n".join(told_lines(f"fewstep: {sentence}")), file=sys.stderr)


def _tell_unexpected(error: Exception) -> int:
    """What nobody below explained: Ctrl-C in disguise, the user's disk, or a defect."""
    from fewstep.files import disk_errno, disk_reason, interruption

    if isinstance(interruption(error), KeyboardInterrupt):
        return Exit.INTERRUPTED
    if disk_errno(error) not in _USERS_DISK:
        return _tell_defect(error)
    place = shown(str(getattr(error, "filename", None) or "a file"), 400, quoted=False)
    _tell(f"{place} cannot be written or read: {disk_reason(error)}")
    return Exit.USER


def _tell_defect(error: BaseException) -> int:
    traceback.print_exception(error)
    _tell("This is a defect of fewstep, not of what you asked for; please report it with the lines above.")
    return Exit.INTERNAL
