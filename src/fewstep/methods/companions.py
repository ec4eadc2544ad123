"""Settings of the losses that accompany the terms: they make network calls of their own, by Euler steps."""

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from fewstep.bounds import GuidanceScale, Levels, Share, Steps, Weight
from fewstep.core.schedules import FOUR_STEPS, check_levels
from fewstep.section import Section


class Companion(Section):
    """What a loss with network calls of its own says of itself.

    Attributes:
        weight: Factor on its loss.
        about: What it does with Euler steps, as a sentence goes on after its name.
        unguided: The override, below its name, under which the teacher is not guided.
    """

    weight: Weight
    about: ClassVar[str]
    unguided: ClassVar[str]

    @property
    @abstractmethod
    def guides(self) -> bool:
        """Whether the teacher is asked at a guidance scale other than 1."""


class _GuidanceRange(Section):
    """A guidance scale drawn uniformly once per step, counted so that 1 is off; one value when both ends are equal."""

    low: GuidanceScale = 5.0
    high: GuidanceScale = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> "_GuidanceRange":
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high, which is {self.high}")
        return self


class IntraSegmentGuidance(Companion):
    """`isg`: a step across a segment of its own fixed grid must end where a guided detour ends (SenseFlow)."""

    weight: Weight = 0.5
    levels: Levels = Field(default=FOUR_STEPS, description="the grid, before the time shift")
    margin: Share = Field(default=0.05, description="least distance of the detour from a segment's ends, in sigma")
    guidance: _GuidanceRange = _GuidanceRange()
    about: ClassVar[str] = "compares Euler steps across a segment"
    unguided: ClassVar[str] = "guidance={low: 1, high: 1}"

    @field_validator("levels")
    @classmethod
    def _descend(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        check_levels(levels)
        return levels

    @property
    def guides(self) -> bool:
        return (self.guidance.low, self.guidance.high) != (1.0, 1.0)


class DiversityPreservation(Companion):
    """`dp`: the student's first step goes where the guided teacher's first steps lead from the same noise (DP-DMD).

    That step is its alone: with it the anchors of all other terms begin at the schedule's second.
    """

    weight: Weight = 0.05
    to: Share = Field(default=0.75, description="level where the teacher's steps end, before the time shift")
    steps: Steps = Field(default=5, description="Euler steps of the teacher down to it, even before the time shift")
    guidance_scale: GuidanceScale = Field(default=3.5, description="of the teacher, counted so that 1 is off")
    about: ClassVar[str] = "teaches the first of the student's Euler steps"
    unguided: ClassVar[str] = "guidance_scale=1"

    @field_validator("to")
    @classmethod
    def _between_noise_and_data(cls, to: float) -> float:
        if not 0.0 < to < 1.0:
            raise ValueError(f"to is {to}; it must be below 1, where the first step begins, and above 0")
        return to

    @property
    def levels(self) -> tuple[float, ...]:
        """Where the teacher is asked, and where its last step ends."""
        return tuple(1.0 - (1.0 - self.to) * k / self.steps for k in range(self.steps + 1))

    @property
    def guides(self) -> bool:
        return self.guidance_scale != 1.0
