"""What a comparison with an original found."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        metric: Ours.
        original: The package with its version.
        what: On what both were run.
        difference: A number and its kind.
    """

    metric: str
    original: str
    what: str
    difference: str


def relative(metric: str, original: str, what: str, ours: float, theirs: float) -> Finding:
    """The difference of two figures as a share of the original's."""
    return Finding(metric, original, what, f"{abs(ours - theirs) / abs(theirs):.1e} relative")


def worst(metric: str, original: str, what: str, ours: Sequence[float], theirs: Sequence[float]) -> Finding:
    """The largest difference of single scores."""
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return Finding(metric, original, what, f"{largest:.1e} at most, of scores {min(theirs):.2f} to {max(theirs):.2f}")
