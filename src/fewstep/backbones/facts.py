"""``fewstep.json``: what a pipeline folder says about itself that diffusers has no place for."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from fewstep.core.points import Step
from fewstep.errors import CheckpointError, shown
from fewstep.files import UnreadableError, read_json, write_json
from fewstep.section import Section

FACTS_FILE = "fewstep.json"
_MAX_FACTS_BYTES = 2**20
_MAX_STEPS = 1000
_ROUNDED_UP = 1 + 1e-6
"""What a time shift makes of level 1 at most: s / (1 + (s - 1)) rounds to the neighbour of 1 in float32."""
_Grid = Annotated[
    tuple[Annotated[float, Field(gt=0, le=_ROUNDED_UP, allow_inf_nan=False)], ...],
    Field(min_length=1, max_length=_MAX_STEPS),
]


class ModelFacts(Section):
    """How a folder wants to be sampled, and whether it is a teacher or one of our students.

    The short form, with the fields of ``backbone`` beside its kind, reads the same:
    ``{"role": "teacher", "backbone": "sd3", "height": 32}``.
    """

    role: Literal["teacher", "student"]
    backbone: dict[str, Any] = Field(description="fields of the BackboneConfig, without the model's own place")
    levels: _Grid | None = Field(default=None, description="the grid before the backbone's time shift")
    sigmas: _Grid | None = Field(default=None, description="the same grid as the network sees it")
    steps: int | None = Field(
        default=None, ge=1, le=_MAX_STEPS, description="network calls of its usual sampling, for a teacher"
    )
    step: Step = Field(default="euler", description="between noise levels, of a student")
    guidance_scale: float = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)
    scheduler: dict[str, Any] | None = Field(
        default=None, description="the teacher's scheduler; a student's own takes sigmas as they are and tells no clock"
    )
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("backbone"), str):
            return value
        own = {key: value[key] for key in value.keys() & cls.model_fields.keys() - {"backbone"}}
        rest = {key: value[key] for key in value.keys() - cls.model_fields.keys()}
        return {**own, "backbone": {"kind": value["backbone"], **rest}}


def read_facts(path: Path) -> ModelFacts:
    """Read one ``fewstep.json``."""
    try:
        return ModelFacts.model_validate(read_json(path, dict[str, Any], max_bytes=_MAX_FACTS_BYTES))
    except (UnreadableError, ValidationError) as error:
        detail = error if isinstance(error, UnreadableError) else _first(error)
        raise CheckpointError(
            f"{path} is damaged or was written by something else: {detail}. "
            "Export the model again, or delete the file to treat the folder as a plain diffusers pipeline."
        ) from error


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{shown(place, quoted=False)} is {shown(problem['input'])} ({problem['msg']})"


def write_facts(facts: ModelFacts, folder: Path) -> None:
    """Write ``fewstep.json`` into a pipeline folder."""
    write_json(folder / FACTS_FILE, facts.model_dump(mode="json"))
