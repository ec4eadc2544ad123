"""The end of a process, once its exit code is known."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def end(code: int) -> NoReturn:
    """Leave with ``code``; as one of a job's processes without taking the interpreter down.

    Gloo's threads may hold what processes exchanged for a little longer than the group, and free it when they get to
    it. If the interpreter is being taken down then, they ask for a lock that nobody gives, and the process whose work
    is done and saved aborts with "terminate called without an active exception", which the launcher calls a failure
    (pytorch/pytorch#179291). So what has to happen at the end happens here, and then the process is gone.
    """
    if "RANK" not in os.environ:
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons, as the interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)
