"""What a recipe says about health: what is looked at, and what is done when a signal fires."""

from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Field

from fewstep.bounds import Count, Part, Pictures
from fewstep.section import Changeable, Section


class Warn(Section):
    """Tell it on the terminal and in metrics.jsonl, and go on."""

    kind: Literal["warn"] = "warn"


class Stop(Section):
    """Save, and end the command with a sentence and its own exit code."""

    kind: Literal["stop"] = "stop"


class Rewind(Section):
    """Go back to the last checkpoint at which nothing was beyond its limit, and go on with lower rates; then stop."""

    kind: Literal["rewind"] = "rewind"
    lower_lr: Part = Field(default=0.5, description="factor on both learning rates, each time")
    most: Count = Field(default=3, description="times; at the next one the run stops")


class ProbeConfig(Section):
    """A few pictures of the student beside the teacher's of the same prompts and seeds, as latents."""

    every: Count = Field(description="student updates")
    prompts: Pictures = 8
    seeds: Annotated[int, Interval(ge=2, le=64)] = Field(default=2, description="of each prompt; 2 show diversity")

    @property
    def pictures(self) -> int:
        """How many are drawn at a time."""
        return self.prompts * self.seeds


class HealthConfig(Changeable):
    """Signals that the run goes wrong; until one acts, nothing that is computed changes."""

    probe: ProbeConfig | None = Field(default=None, description="None looks only at what every update shows anyway")
    start: Count = Field(
        default=50, description="updates behind the warm-up whose median is the run's own normal, for some limits"
    )
    window: Count = Field(default=9, description="updates whose median is judged, so that one odd update is none")
    action: Warn | Stop | Rewind = Field(default=Warn(), discriminator="kind")
