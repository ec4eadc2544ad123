"""Runs a command on hostile input and says what it did that it must not do."""

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from fewstep.cli.main import execute

MOST_LINES = 20
MOST_SECONDS = 30.0
"""Of the processor, on any machine: several times what the undamaged command takes, far less than reading for ever."""
MOST_BYTES = 2**30
MOST_READ = 2**32
"""From files: what reads a hole of 16 GiB to its end is found on a fast machine too."""
CANARY = "canary"
"""Any code in the input writes this file beside the folder it works in."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        name: What was done to the input.
        arguments: The command line; paths are relative to the folder that is prepared.
        prepare: Puts the input into a folder.
        writes: Where the command may write, below that folder.
    """

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    writes: tuple[str, ...] = ()


def faults(case: Case, folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Run one case in a folder of its own, and list what it did wrong; nothing when it behaved.

    Args:
        case: The input and the command.
        folder: Where everything of the case lies; the command works in ``folder/here``.
        capfd: Catches what libraries print as well.
    """
    here = folder / "here"
    here.mkdir(parents=True, exist_ok=True)
    case.prepare(here)
    before = content(folder, case.writes)
    capfd.readouterr()
    with within(here), at_most(60):
        _forget_peak()
        resident, started, had_read = _resident(), time.process_time(), _bytes_read()
        code = execute(list(case.arguments))
        seconds, grown = time.process_time() - started, _peak() - resident
    said = capfd.readouterr().err
    found = judged(code, said, seconds=seconds, grown=grown)
    if (read := _bytes_read() - had_read) > MOST_READ:
        found.append(f"{read / 2**30:.1f} GiB read")
    if content(folder, case.writes) != before:
        changed = {name for name, _ in set(content(folder, case.writes).items()) ^ set(before.items())}
        found.append(f"wrote {sorted(changed)[:5]}")
    return [f"{case.name}: {' '.join(case.arguments)[:200]}: {fault}" for fault in found]


def judged(code: int, said: str, *, seconds: float, grown: float) -> list[str]:
    """What is wrong with how a command ended: its code, its message, what it took."""
    found = []
    if code not in (0, 2):
        found.append(f"exit code {code}: {said.strip()[-700:]}")
    if "Traceback" in said:
        found.append("a traceback")
    if said.count("\n") > MOST_LINES:
        found.append(f"{said.count(chr(10))} lines")
    # colours of libraries' progress bars are theirs
    if code == 2 and re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]", said):
        found.append(f"control characters in {said[:200]!r}")
    if code == 2 and not re.search(r"fewstep: |Error", said):
        found.append(f"no sentence: {said[:200]!r}")
    if seconds > MOST_SECONDS:
        found.append(f"{seconds:.1f} s")
    if grown > MOST_BYTES:
        found.append(f"{grown / 2**20:.0f} MiB")
    return found


def content(folder: Path, writes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """What lies where, apart from where the command may write."""
    allowed = [folder / "here" / name for name in writes]
    found = {}
    for place, folders, files in os.walk(folder):
        path = Path(place)
        folders[:] = [name for name in folders if path / name not in allowed]
        for name in (*folders, *files):
            if path / name not in allowed:
                stat = (path / name).lstat()
                size = 0 if (path / name).is_dir() else stat.st_size
                found[str((path / name).relative_to(folder))] = (stat.st_mode, size, stat.st_ino)
    return found


@contextmanager
def within(folder: Path) -> Iterator[None]:
    back = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(back)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Stop what waits for ever, such as for the other end of a pipe."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still busy after {seconds} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def _status(key: str) -> int:
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def _bytes_read() -> int:
    """By this process so far, from whatever the system's calls read; 0 where the system does not tell."""
    told = Path("/proc/self/io")
    match = re.search(r"rchar: (\d+)", told.read_text()) if told.exists() else None
    return int(match[1]) if match else 0


def _resident() -> int:
    return _status("VmRSS") if Path("/proc/self/status").exists() else 0


def _peak() -> int:
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Let the peak begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
