"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "note", "broken"]


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; whatever is not fine comes with what to do.

    Attributes:
        about: What was looked at, in a word or two.
        found: What is there.
        fix: What to do; None where nothing is to be done.
        broken: Whether fewstep cannot do its work until that is done.
    """

    about: str
    found: str
    fix: str | None = None
    broken: bool = False

    def __post_init__(self) -> None:
        assert self.fix or not self.broken, f"{self.about} is broken, and nothing says what to do"

    @property
    def state(self) -> State:
        """``note`` where something is missing that not everybody needs."""
        if self.fix is None:
            return "fine"
        return "broken" if self.broken else "note"
