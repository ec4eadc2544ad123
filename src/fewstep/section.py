"""What every part of a configuration or record is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Changeable(Section):
    """Settings that a resume may change: how long a run is, what it tells, where and how it computes, not what."""
