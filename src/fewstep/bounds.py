"""Between which bounds numbers and texts lie: named kinds of values, for settings, options and functions.

The bounds are generous. They are here so that a slip (a zero too many, a value of another setting) is told at once and
not by a machine that runs out of memory an hour later.
"""

import math
from typing import Annotated, Any, Literal, get_args

from annotated_types import Interval, MaxLen, Predicate

from fewstep.errors import ConfigError, shown

_MAX_COUNT = 2**31 - 1
_MAX_SEED = 2**63 - 1
_MAX_BATCH = 2**20
_MAX_STEPS = 1000
_MAX_FRAMES = 1000
_MAX_PIXELS = 2**14
_MAX_TOKENS = 2**13
_MAX_RANK = 2**12
_MAX_THREADS = 2**10
_MAX_PROCESSES = 2**16
_MAX_PICTURES = 2**16
_MAX_MINUTES = 7 * 24 * 60.0
_MAX_SCALE = 1000.0
_MAX_WEIGHT = 1e6
_MAX_NAME = 300
_MAX_TEXT = 4096


def _has_no_control_characters(text: str) -> bool:
    """Whether a text is one line that a terminal shows as it is."""
    return text.isprintable()


Count = Annotated[int, Interval(ge=1, le=_MAX_COUNT)]
"""How often, or how many, where each is cheap: updates, prompts, checkpoints."""
CountOrNone = Annotated[int, Interval(ge=0, le=_MAX_COUNT)]
"""A count that may be 0."""
Seed = Annotated[int, Interval(ge=0, le=_MAX_SEED)]
Batch = Annotated[int, Interval(ge=1, le=_MAX_BATCH)]
"""Samples that are computed at a time."""
Steps = Annotated[int, Interval(ge=1, le=_MAX_STEPS)]
"""Noise levels of one picture, each of which costs a call of the network."""
Frames = Annotated[int, Interval(ge=1, le=_MAX_FRAMES)]
"""Of one clip."""
Pixels = Annotated[int, Interval(ge=1, le=_MAX_PIXELS)]
Tokens = Annotated[int, Interval(ge=0, le=_MAX_TOKENS)]
Rank = Annotated[int, Interval(ge=1, le=_MAX_RANK)]
Threads = Annotated[int, Interval(ge=1, le=_MAX_THREADS)]
Processes = Annotated[int, Interval(ge=1, le=_MAX_PROCESSES)]
Pictures = Annotated[int, Interval(ge=1, le=_MAX_PICTURES)]
"""Pictures of one prompt, or on one sheet."""

Minutes = Annotated[float, Interval(gt=0, le=_MAX_MINUTES)]
Rate = Annotated[float, Interval(gt=0, le=_MAX_SCALE)]
"""A learning rate, or another small positive number that scales an update."""
Decay = Annotated[float, Interval(ge=0, lt=1)]
Share = Annotated[float, Interval(ge=0, le=1)]
"""A noise level, or a part of a whole."""
Part = Annotated[float, Interval(gt=0, lt=1)]
"""A factor that makes less of something."""
Weight = Annotated[float, Interval(gt=0, le=_MAX_WEIGHT)]
Scale = Annotated[float, Interval(ge=-_MAX_SCALE, le=_MAX_SCALE)]
"""A coefficient that may turn the sign."""
GuidanceScale = Annotated[float, Interval(ge=0, le=_MAX_SCALE)]
Levels = Annotated[tuple[Share, ...], MaxLen(_MAX_STEPS)]

DtypeName = Literal["fp32", "bf16"]
"""What networks compute in."""
WrittenDtype = Literal["fp32", "bf16", "fp16"]
"""What exported weights are written in."""
Name = Annotated[str, MaxLen(_MAX_NAME), Predicate(_has_no_control_characters)]
"""What something is called: a column, a metric, a revision."""
Place = Annotated[str, MaxLen(_MAX_TEXT), Predicate(_has_no_control_characters)]
"""A path, or the id of a repository."""


def most(kind: Any) -> Any:
    """The largest value of a kind of numbers, as an option of a command states it."""
    return _interval(kind).le


def require_within(value: Any, name: str, kind: Any) -> None:
    """Refuse an argument of a function that is no finite number between the bounds of a kind, both allowed.

    Raises:
        ConfigError: With the name, the value and the bounds.
    """
    whole, low, high = get_args(kind)[0] is int, _interval(kind).ge, _interval(kind).le
    number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
    if not number or not low <= value <= high or not math.isfinite(value):
        raise ConfigError(f"{name} is {shown(value)}; it must be a {'whole ' * whole}number from {low:g} to {high:g}.")


def _interval(kind: Any) -> Any:
    return next(bounds for bounds in get_args(kind) if isinstance(bounds, Interval))
