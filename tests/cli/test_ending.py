"""The end of a process: everything that waits for it happens, and a job's process does not take Python down."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time

class Last:
    def __del__(self):
        sys.stderr.write("taken down ")

last = Last()
atexit.register(lambda: sys.stderr.write("asked at exit "))
threading.Thread(target=lambda: (time.sleep(0.2), sys.stderr.write("thread done "))).start()
from fewstep.cli.ending import end
print("unflushed", end=" ")
end({code})
"""


@pytest.mark.parametrize("code", [0, 2])
@pytest.mark.parametrize("of_a_job", [False, True])
def test_nothing_that_was_asked_for_is_lost(code: int, of_a_job: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    environment |= {"RANK": "1"} if of_a_job else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{code}", str(code))], env=environment, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout == "unflushed "
    told = "thread done asked at exit "
    assert done.stderr == (told if of_a_job else f"{told}taken down ")
