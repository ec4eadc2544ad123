"""Where a run's figures go besides metrics.jsonl: TensorBoard, trackio, Weights & Biases, behind three calls.

A library is imported when a run asks for it, and no figure leaves this machine unless the user's environment says so. A
tracker hears of a run and never decides about it: one that fails is told once, and the run goes on without it.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fewstep.config.run_config import RunConfig, TrackerName
from fewstep.errors import ConfigError, shown
from fewstep.files import interruption
from fewstep.runs.folder import RunFolder

_PROJECT = "fewstep"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker gets to know of a run before its first step.

    Attributes:
        name: Of its folder.
        id: Of this run and no other, the same after a resume.
        settings: All of them, as plain data.
        folder: The run's folder.
        first_step: Completed steps; later ones that a tracker has are written again.
        start: How many times the run was started, this one included.
        rewinds: How many times it went back since.
    """

    name: str
    id: str
    settings: Mapping[str, Any]
    folder: Path
    first_step: int
    start: int = 1
    rewinds: int = 0

    @property
    def part(self) -> str:
        """Ends the names of what is written from here on, where only new steps can be appended to what there is."""
        numbers = [self.start, self.rewinds] if self.rewinds else [self.start] if self.start > 1 else []
        return "".join(f"-{number}" for number in numbers)


def tracked_run(config: RunConfig, folder: RunFolder, *, first_step: int) -> TrackedRun:
    """What a run's folder and settings say of it; its first start is part of the id, and so the same after a resume."""
    facts = folder.facts
    started = "".join(filter(str.isalnum, str(facts["sessions"][0].get("started", ""))[:19]))
    recipe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in facts["recipe"])
    return TrackedRun(
        name=folder.path.name,
        id=f"{recipe}-{facts['config_hash']}-{started}",
        settings=config.model_dump(mode="json"),
        folder=folder.path,
        first_step=first_step,
        start=len(facts["sessions"]),
    )


class Tracker(Protocol):
    """One place where figures go."""

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with the run of that id."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take figures of a step; of one step they may come in parts."""

    def end(self) -> None:
        """Write what is not written yet."""


class Trackers:
    """Those of one run; all errors of theirs end here.

    Args:
        names: As ``report.trackers`` has them; None is TensorBoard where it is installed.
        run: The run; they are started at once.
        tell: Shows a sentence to the user.
    """

    def __init__(self, names: Sequence[TrackerName] | None, run: TrackedRun, tell: Callable[[str], None]) -> None:
        self._tell, self._run = tell, run
        asked = dict.fromkeys(_if_installed("tensorboard") if names is None else names)
        self._alive: dict[TrackerName, Tracker] = {name: _TRACKERS[name]() for name in asked}
        self._each(lambda tracker: tracker.start(run))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Give figures of a step to every tracker."""
        self._each(lambda tracker: tracker.log(step, figures))

    def go_back(self, step: int) -> None:
        """Begin again at a step that was reached before, as a resume does."""
        self.end()
        self._run = replace(self._run, first_step=step, rewinds=self._run.rewinds + 1)
        self._each(lambda tracker: tracker.start(self._run))

    def end(self) -> None:
        """Let every tracker finish."""
        self._each(lambda tracker: tracker.end())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._alive.items()):
            try:
                call(tracker)
            except Exception as error:
                if (stopped := interruption(error)) is not None:
                    raise stopped from None
                del self._alive[name]
                reason = shown(" ".join(f"{type(error).__name__}: {error}".split()), 300, quoted=False)
                self._tell(
                    f"Warning: the tracker {name} failed ({reason}); the run goes on without it, and every figure is "
                    "in metrics.jsonl."
                )


def require_trackers(names: Sequence[TrackerName] | None) -> None:
    """Raise ConfigError when a tracker that was asked for is not installed."""
    for name in names or ():
        if not _if_installed(name):
            raise ConfigError(
                f"report.trackers names {name}, which is not installed; install it with: pip install "
                "'fewstep[tracking]', or leave it out."
            )


def _if_installed(name: TrackerName) -> tuple[TrackerName, ...]:
    return () if importlib.util.find_spec(name) is None else (name,)


class _TensorBoard:
    """Events in the run's folder; those of steps that are written again are dropped."""

    def start(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.first_step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)

    def end(self) -> None:
        self._events.close()


class _Trackio:
    """trackio's own database of this machine: ``trackio show`` draws it."""

    def start(self, run: TrackedRun) -> None:
        import trackio

        self._library: Any = trackio
        with redirect_stdout(sys.stderr):  # standard output is for what a command answers
            # it keeps both figures of a step that is written again in one run, so a resume is a run of the same group
            trackio.init(project=_PROJECT, name=run.id + run.part, group=run.id, config=dict(run.settings))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._library.log(dict(figures), step=step)

    def end(self) -> None:
        with redirect_stdout(sys.stderr):
            self._library.finish()


class _WeightsAndBiases:
    """Files beside the runs, for ``wandb sync``; online where WANDB_MODE says so."""

    def start(self, run: TrackedRun) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":  # else it reports its own use to its makers all the same
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run: Any = wandb.init(
            project=_PROJECT,
            name=run.name + run.part,
            # a server drops figures of steps that its run has, so a resume is a run of the same group
            id=run.id + run.part,
            group=run.id,
            config=dict(run.settings),
            mode=mode,
            # beside the run's folder: it makes links, which a run's own folder must not have
            dir=os.environ.get("WANDB_DIR", str(run.folder.parent)),
            resume="allow",
            settings={"console": "off"},  # else it takes over the streams that the progress bar is drawn on
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def end(self) -> None:
        self._run.finish()


_TRACKERS: dict[TrackerName, Callable[[], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _WeightsAndBiases,
}
