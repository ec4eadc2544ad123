"""When a figure is no longer healthy: limits, the run's own normal, and a window, so that one odd update is no alarm.

What is judged is the median of the last looks, so that most of them have to be beyond the limit. A limit is a number
where the figure has one by its meaning, or a multiple of the median of the run's own first looks behind the warm-up,
where it depends on the model and the recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_high, median_low
from typing import Any

from pydantic import Field

from fewstep.health.settings import HealthConfig
from fewstep.section import Section

# a signal that fires falls silent this much inside its limit, so that it does not flicker at it
_BACK = 0.9
# pictures of the same prompts and seeds have no noise to wait for: both of two
_WINDOW_OF_PROBES = 2


@dataclass(frozen=True)
class Signal:
    """One figure and the limit that it must not pass.

    Attributes:
        says: What it means that it does.
        remedy: What to try.
        above: Largest healthy value.
        below: Smallest healthy value.
        times: Largest healthy multiple of the run's own normal.
        probed: Comes with pictures, not with every update.
    """

    says: str
    remedy: str
    above: float | None = None
    below: float | None = None
    times: float | None = None
    probed: bool = False


_PACE = "raise fake_score.lr or student.every, or lower student.lr"
_CALMER = "lower student.lr and fake_score.lr"
_LESS_GUIDANCE = "lower terms.ca.scale or the guidance_scale of the terms, or set terms.ca.renormalise=sample"

# reasons for each limit: docs/health.md
SIGNALS: dict[str, Signal] = {
    "fake_lag": Signal(
        "the fake score has gone less than a quarter of the way that the student has", _PACE, above=3.0
    ),
    "dm_to_ca": Signal(
        "dm hardly holds ca back, so guidance is engraved without a measure", f"{_PACE}, or {_LESS_GUIDANCE}",
        below=0.02,
    ),
    "cosine": Signal("ca and dm pull against each other, so that little is learnt", _LESS_GUIDANCE, below=-0.8),
    "floored": Signal(
        "most directions are divided by the floor of the normaliser and not by the student's error",
        "lower terms.NAME.floor to what the latents of this backbone need", above=0.75,
    ),
    "norm/dm": Signal("student and teacher move apart", f"{_CALMER}, or raise student.every", times=4.0),
    "norm/cdm": Signal("student and teacher move apart off the trajectory", _CALMER, times=4.0),
    "grad_norm/student": Signal("the student's gradient grows", _CALMER, times=4.0),
    "grad_norm/fake_score": Signal("the fake score's gradient grows", _CALMER, times=4.0),
    "cast": Signal(
        "the pictures drift to another colour than the teacher's", f"{_LESS_GUIDANCE}, or {_CALMER}", above=0.5,
        probed=True,
    ),
    "contrast": Signal("the pictures have more contrast than the teacher's", _LESS_GUIDANCE, above=1.3, probed=True),
    "saturation": Signal(
        "colours lie beyond what the teacher draws: over-saturated", _LESS_GUIDANCE, above=0.05, probed=True
    ),
    "diversity": Signal(
        "different seeds give nearly the same picture", "add terms.dp, or lower terms.ca.scale", below=0.5, probed=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Alarm:
    """A signal that begins to fire.

    Attributes:
        name: Of the signal.
        message: One sentence: figure, limit, what it means, what to do.
    """

    name: str
    message: str


class _Watch(Section):
    """What a guard remembers of one signal; a checkpoint keeps it."""

    first: tuple[float, ...] = Field(default=(), description="looks that make the run's own normal")
    recent: tuple[float, ...] = Field(default=(), description="the last looks")
    fires: bool = False


class GuardState(Section):
    """All that a guard remembers."""

    watches: dict[str, _Watch] = Field(default_factory=dict)


class Guard:
    """Looks at figures update by update.

    Args:
        config: The recipe's section.
        warmup: Student updates of the warm-up, in which nothing is judged.
    """

    def __init__(self, config: HealthConfig, *, warmup: int) -> None:
        self.config, self.warmup = config, warmup
        self.state = GuardState()

    @property
    def healthy(self) -> bool:
        """Whether no recent look was beyond a limit, so that a run that goes back there has its whole window again."""
        watches = self.state.watches.items()
        return not any(watch.fires or _any_beyond(watch, SIGNALS[name]) for name, watch in watches)

    @property
    def firing(self) -> list[str]:
        """The signals that fire."""
        return [name for name, watch in self.state.watches.items() if watch.fires]

    def look(self, figures: Mapping[str, float], *, update: int) -> list[Alarm]:
        """Take note of an update's figures; those of pictures only where some were drawn.

        Args:
            figures: By the names of :data:`SIGNALS`; others are left alone.
            update: The student's, from 1.

        Returns:
            The signals that fire from now on.
        """
        watches, alarms = dict(self.state.watches), list[str]()
        for name, signal in SIGNALS.items():
            if name not in figures or (update <= self.warmup and not signal.probed):
                continue
            before = watches.get(name, _Watch())
            watches[name] = after = self._after(before, signal, figures[name])
            if after.fires and not before.fires:
                alarms.append(name)
        self.state = GuardState(watches=watches)
        return [self.alarm(name, update=update) for name in alarms]

    def alarm(self, name: str, *, update: int) -> Alarm:
        """What is told of a signal that fires."""
        return Alarm(name, self._sentence(name, self.state.watches[name], update))

    def _after(self, watch: _Watch, signal: Signal, value: float) -> _Watch:
        window = min(self.config.window, _WINDOW_OF_PROBES) if signal.probed else self.config.window
        changed: dict[str, Any] = {"recent": (*watch.recent, value)[-window:]}
        if signal.times is not None and len(watch.first) < self.config.start:
            changed["first"] = (*watch.first, value)
        elif len(changed["recent"]) == window:
            judged = _judged(changed["recent"], signal)
            changed["fires"] = _passes(judged, watch, signal, _BACK if watch.fires else 1.0)
        return watch.model_copy(update=changed)

    def _sentence(self, name: str, watch: _Watch, update: int) -> str:
        signal, figure = SIGNALS[name], name if name.startswith("grad_norm/") else f"health/{name}"
        if signal.below is not None:
            limit = f"below {signal.below:g}"
        elif signal.times is not None:
            limit = f"above {signal.times:g} times {median(watch.first):.3g}, its median at first"
        else:
            limit = f"above {signal.above:g}"
        return (
            f"{figure} is {_judged(watch.recent, signal):.3g} at student update {update}, {limit}: {signal.says}. "
            f"If the pictures agree, {signal.remedy}."
        )


def _judged(recent: Sequence[float], signal: Signal) -> float:
    """The median; of an even number the one nearer to health."""
    return median_low(recent) if signal.below is None else median_high(recent)


def _any_beyond(watch: _Watch, signal: Signal) -> bool:
    known = signal.times is None or watch.first
    return bool(known) and any(_passes(value, watch, signal) for value in watch.recent)


def _passes(value: float, watch: _Watch, signal: Signal, part: float = 1.0) -> bool:
    """Whether a value is beyond the limit, or beyond this part of the way to it."""
    if signal.below is not None:
        return value < (signal.below / part if signal.below > 0 else signal.below * part)
    limit = signal.above if signal.times is None else signal.times * median(watch.first)
    assert limit is not None
    return value > part * limit
