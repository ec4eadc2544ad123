"""``fewstep.json``: what a pipeline folder says about itself that diffusers has no place for."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fewstep.errors import CheckpointError

FACTS_FILE = "fewstep.json"


class ModelFacts(BaseModel):
    """How a folder wants to be sampled, and whether it is a teacher or one of our students.

    The short form, with the fields of ``backbone`` beside its kind, reads the same:
    ``{"role": "teacher", "backbone": "sd3", "height": 32}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["teacher", "student"]
    backbone: dict[str, Any] = Field(description="fields of the BackboneConfig, without the model's own place")
    levels: tuple[float, ...] | None = Field(default=None, description="the grid before the backbone's time shift")
    sigmas: tuple[float, ...] | None = Field(default=None, description="the same grid as the network sees it")
    steps: int | None = Field(default=None, description="network calls of its usual sampling, for a teacher")
    guidance_scale: float = 1.0
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
        return ModelFacts.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        detail = str(error).splitlines()[-1 if isinstance(error, UnicodeDecodeError) else 0]
        raise CheckpointError(
            f"{path} is damaged or was written by something else ({detail}). "
            "Export the model again, or delete the file to treat the folder as a plain diffusers pipeline."
        ) from error


def write_facts(facts: ModelFacts, folder: Path) -> None:
    """Write ``fewstep.json`` into a pipeline folder."""
    text = json.dumps(facts.model_dump(mode="json"), indent=2, sort_keys=True)
    (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
