"""Runs a command and ends with the right exit code.

0 done    2 the user's error, told in a sentence    1 a defect of ours, with its traceback    130 Ctrl-C
"""

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from fewstep.cli.app import app
from fewstep.cli.quiet import quiet_libraries
from fewstep.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER, FewstepError, told_lines

_USERS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def run() -> NoReturn:
    """Entry point of the ``fewstep`` script."""
    quiet_libraries()
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is told on stderr."""
    code = EXIT_OK
    try:
        # typer leaves by itself: 0 when done, 2 for a command line it cannot read, 130 for Ctrl-C
        app(list(arguments) or ["--help"], prog_name="fewstep")
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else EXIT_OK
    except FewstepError as error:
        if not error.told:
            _tell(str(error))
        code = error.exit_code
    except OSError as error:
        code = _tell_disk(error) if error.errno in _USERS_DISK else _tell_defect(error)
    except Exception as error:
        code = _tell_defect(error)
    if code == EXIT_INTERRUPTED:
        _tell("Interrupted.")
    return code


def _tell(sentence: str) -> None:
    print("\n".join(told_lines(f"fewstep: {sentence}")), file=sys.stderr)


def _tell_disk(error: OSError) -> int:
    from fewstep.files import disk_reason

    place = error.filename if error.filename is not None else "a file"
    _tell(f"{place} cannot be written or read: {disk_reason(error)}")
    return EXIT_USER


def _tell_defect(error: BaseException) -> int:
    traceback.print_exception(error)
    _tell("This is a defect of fewstep, not of what you asked for; please report it with the lines above.")
    return EXIT_INTERNAL
