"""What a run tells while it trains: a progress bar, metrics.jsonl, trackers."""

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fewstep.files import explain_write_errors, whole_file
from fewstep.runs.metrics import stored_lines
from fewstep.training.trackers import Trackers
from fewstep.training.trainer import StepReport

_SMOOTHING = 20  # steps over which the bar's losses and speed are averaged: single steps differ by their length


class Reporter(AbstractContextManager["Reporter"]):
    """Writes every ``log_every``-th step to the metrics file and shows progress.

    Args:
        metrics: The run's metrics.jsonl; lines of steps that a resume repeats are dropped first.
        first_step: Completed steps.
        total_steps: Steps of the budget.
        steps_per_update: Steps per student update.
        log_every: Steps between lines.
        trackers: Where figures go besides; ended with the reporter.
        console: Where the bar is drawn; a console that is not a terminal gets a line now and then.
    """

    def __init__(
        self,
        metrics: Path,
        *,
        first_step: int,
        total_steps: int,
        steps_per_update: int,
        log_every: int,
        trackers: Trackers,
        console: Console,
    ) -> None:
        drop_metrics_from(metrics, first_step)
        self.log_every = log_every
        self.steps_per_update = steps_per_update
        self.total_steps = total_steps
        self.console = console
        self._metrics = metrics
        with explain_write_errors(metrics):
            self._file = metrics.open("a")
        self._trackers = trackers
        self._recent: dict[str, deque[float]] = {}
        self._started = self._last = time.perf_counter()
        self._first_step = first_step
        self._progress = Progress(
            TextColumn("[bold]update {task.fields[update]}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(
            "", total=total_steps, completed=first_step, update="0", losses="", speed=""
        )

    def __enter__(self) -> "Reporter":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._file.close()
        self._trackers.end()

    def step(self, report: StepReport) -> None:
        """Take note of a completed step."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        for name, value in report.figures.items():
            if name.startswith("loss/"):
                self._recent.setdefault(name, deque(maxlen=_SMOOTHING)).append(value)
        self._recent.setdefault("seconds", deque(maxlen=_SMOOTHING)).append(seconds)
        if report.step % self.log_every == 0:
            self._write(report, seconds)
        self._show(report)

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Write further figures of a step that was already told."""
        self._append({"step": step, **figures})
        self._trackers.log(step, figures)

    def go_back(self, step: int) -> None:
        """Forget the lines of ``step`` and later, which the run goes on to write again."""
        self._file.close()
        drop_metrics_from(self._metrics, step)
        with explain_write_errors(self._metrics):
            self._file = self._metrics.open("a")
        self._trackers.go_back(step)
        self._recent.clear()
        self._progress.update(self._task, completed=step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the step's time (pictures, checkpoints)."""
        before = time.perf_counter()
        yield
        self._last += time.perf_counter() - before

    def _write(self, report: StepReport, seconds: float) -> None:
        line: dict[str, Any] = {"step": report.step, "num_anchors": report.num_anchors, "seconds": round(seconds, 4)}
        self._append(line | report.figures)
        self._trackers.log(report.step, report.figures)

    def _append(self, line: Mapping[str, Any]) -> None:
        with explain_write_errors(self._metrics):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _show(self, report: StepReport) -> None:
        done = report.step + 1
        means = {name: sum(values) / len(values) for name, values in self._recent.items()}
        per_second = 1.0 / max(means["seconds"], 1e-9)
        losses = "  ".join(f"{name.removeprefix('loss/')} {means[name]:.4f}" for name in means if name != "seconds")
        update = f"{done // self.steps_per_update}/{self.total_steps // self.steps_per_update}"
        speed = f"{per_second:.2f} steps/s"
        self._progress.update(self._task, completed=done, update=update, losses=losses, speed=speed)
        if not self.console.is_terminal and (done % max(1, self.total_steps // 10) == 0 or done == self.total_steps):
            left = (self.total_steps - done) / per_second
            line = f"update {update}  {losses}  {speed}  {left:.0f} s left"
            self.console.print(line, highlight=False, soft_wrap=True)


def drop_metrics_from(metrics: Path, step: int) -> None:
    """Remove the lines of ``step`` and later, which a resumed run writes again, and a last line cut off by a kill.

    Raises:
        CheckpointError: Another line is damaged: that no kill does; or what stands there is no file.
    """
    if not metrics.exists():
        return
    # a kill in between must not cost the lines that were kept
    with explain_write_errors(metrics), whole_file(metrics) as unfinished, unfinished.open("wb") as kept:
        for text, line in stored_lines(metrics):
            if line.step < step:
                kept.write(text + b"\n")
