"""Runs at a glance, from small files and the end of metrics.jsonl: a thousand folders take about a second.

Nothing here loads torch, or opens a checkpoint. What cannot be read is said of its run and is no reason to stop.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from fewstep.errors import CheckpointError, ConfigError
from fewstep.files import UnreadableError, read_json
from fewstep.runs.metrics import Line, last_lines
from fewstep.runs.places import CHECKPOINTS, CONFIG, LOCK, METRICS, RUN, checkpoints, completed_steps

State = Literal["running", "done", "stopped", "damaged"]
"""A process writes it; its budget is spent and saved; neither; a file of it cannot be read."""
SortKey = Literal["age", "name", "recipe", "state", "updates"]

_T = TypeVar("_T")
_MAX_JSON_BYTES = 2**20
_AGES = ((60, "s"), (60, "min"), (24, "h"))


class _Budget(BaseModel):
    student_updates: int = Field(ge=1)


class _Student(BaseModel):
    every: int = Field(ge=1)


class _Asked(BaseModel):
    """What counts here of config.json."""

    budget: _Budget
    student: _Student


class _Facts(BaseModel):
    """And of run.json."""

    recipe: str


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        path: Its folder.
        state: What is going on there.
        recipe: Its recipe; None where a damaged folder does not say.
        updates: Student updates done.
        asked: And those of the budget.
        losses: The last value of each, by name.
        idle_seconds: Since the last step was written; None before the first.
        problem: What is damaged.
    """

    path: Path
    state: State
    recipe: str | None = None
    updates: int | None = None
    asked: int | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    idle_seconds: float | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    @property
    def age(self) -> str | None:
        """How long ago the last step was written, in one unit."""
        if self.idle_seconds is None:
            return None
        count = self.idle_seconds
        for most, unit in _AGES:
            if count < most:
                return f"{int(count)} {unit}"
            count /= most
        return f"{int(count)} d"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "path": str(self.path),
            "state": self.state,
            "recipe": self.recipe,
            "updates": self.updates,
            "asked": self.asked,
            "losses": dict(self.losses),
            "idle_seconds": None if self.idle_seconds is None else round(self.idle_seconds, 1),
            "problem": self.problem,
        }


def list_runs(root: Path, *, now: float | None = None) -> list[RunRow]:
    """A row for each run in a folder, by name, or for the folder itself where that is a run; others are passed over.

    Args:
        now: Seconds since the epoch.

    Raises:
        ConfigError: There is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; name the one that holds the runs (fewstep train --root).")
    if _is_run(root):
        return [read_row(root, now=now)]
    with os.scandir(root) as entries:
        folders = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    return [read_row(folder, now=now) for folder in folders if _is_run(folder)]


def sorted_rows(rows: Sequence[RunRow], by: SortKey) -> list[RunRow]:
    """The youngest step first, the most updates first, else by the alphabet; what says nothing comes last."""
    keys: dict[SortKey, Callable[[RunRow], Any]] = {
        "age": lambda row: row.idle_seconds,
        "name": lambda row: row.name,
        "recipe": lambda row: row.recipe,
        "state": lambda row: row.state,
        "updates": lambda row: None if row.updates is None else -row.updates,
    }
    key = keys[by]
    told = sorted((row for row in rows if key(row) is not None), key=key)
    return [*told, *(row for row in rows if key(row) is None)]


def read_row(folder: Path, *, now: float | None = None) -> RunRow:
    """What a run's folder says of it; of a damaged one, what could be read."""
    said: dict[str, Any] = {}
    try:
        said["recipe"] = _part(folder / RUN, lambda path: read_json(path, _Facts, max_bytes=_MAX_JSON_BYTES)).recipe
        asked = _part(folder / CONFIG, lambda path: read_json(path, _Asked, max_bytes=_MAX_JSON_BYTES))
        said["asked"] = asked.budget.student_updates
        lines = _part(folder / METRICS, last_lines)
        if lines:
            written = (folder / METRICS).stat().st_mtime
            said["idle_seconds"] = max(0.0, (time.time() if now is None else now) - written)
            said["losses"] = _losses(lines)
        saved = max((completed_steps(path) for path in checkpoints(folder / CHECKPOINTS)), default=0)
        done = max([saved, *(line.step + 1 for line in lines)])
        said["updates"] = done // asked.student.every
    except (UnreadableError, CheckpointError, OSError) as error:
        return RunRow(folder, "damaged", **said, problem=str(error))
    if saved >= asked.budget.student_updates * asked.student.every:
        return RunRow(folder, "done", **said)
    return RunRow(folder, "running" if _is_written(folder / LOCK) else "stopped", **said)


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's, even where one of the files that every run has is gone."""
    try:
        with os.scandir(folder) as entries:
            return len({CONFIG, RUN, LOCK} & {entry.name for entry in entries}) >= 2
    except OSError:
        return False


def _part(path: Path, read: Callable[[Path], _T]) -> _T:
    try:
        return read(path)
    except UnreadableError as error:
        raise UnreadableError(f"{path.name}: {error}") from error


def _losses(lines: Sequence[Line]) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in reversed(lines):
        for name, value in line.figures.items():
            if name.startswith("loss/"):
                found.setdefault(name.removeprefix("loss/"), value)
    return found


def _is_written(lock: Path) -> bool:
    """Whether a process holds the lock, on this machine or where the file system passes locks on."""
    try:
        import fcntl

        descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        # for a moment, and shared: a run that starts in it tries again
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
