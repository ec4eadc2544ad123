"""A model as a command line asks for it: ``MODEL,KEY=VALUE,...``, the same words for drawing and for measuring."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from fewstep.bounds import DtypeName, Frames, GuidanceScale, Name, Pixels, Place, Scale, Steps, most
from fewstep.errors import ConfigError, shown
from fewstep.sampling.sampler import require_levels
from fewstep.section import Section

_Sigmas = Annotated[tuple[GuidanceScale, ...], Field(max_length=most(Steps))]
"""A stock scheduler may count noise beyond 1."""


class ModelSpec(Section):
    """A model as the user asks for it. What is None follows from the model's own files."""

    model: Place = Field(description="a diffusers folder, a repository id, or fewstep:digits")
    name: Name | None = Field(default=None, description="in tables and folders; None is the last part of the model's")
    steps: Steps | None = None
    sigmas: _Sigmas | None = Field(default=None, description="noise levels without the final 0")
    guidance_scale: GuidanceScale | None = None
    height: Pixels | None = None
    width: Pixels | None = None
    frames: Frames | None = Field(default=None, description="of a clip, where the model makes videos")
    lora: Place | None = Field(default=None, description="LoRA factors on top: a folder, a file or a repository id")
    lora_scale: Scale = 1.0
    sampler: Literal["auto", "own", "stock"] = Field(
        default="auto",
        description="our Euler loop, or the pipeline with its own scheduler; auto is ours for our models",
    )
    dtype: DtypeName = "fp32"


def parse_spec(text: str, *, option: str = "--model") -> ModelSpec:
    """Read ``MODEL[,KEY=VALUE...]``; sigmas are separated by slashes, as in ``sigmas=1/0.9/0.75/0.5``.

    Args:
        option: Where the text stands, for messages.

    Raises:
        ConfigError: A key is unknown or a value is not what it must be.
    """
    asked = f"{option} {shown(text)}"
    model, *rest = text.split(",")
    fields: dict[str, Any] = {"model": model.strip()}
    for part in rest:
        key, separator, value = part.partition("=")
        if not separator:
            raise ConfigError(f"{shown(part)} in {asked} is no KEY=VALUE; write MODEL,steps=4,guidance_scale=1.")
        fields[key.strip()] = value.split("/") if key.strip() == "sigmas" else value.strip()
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(name for name in ModelSpec.model_fields if name != "model")
        raise ConfigError(
            f"{asked} sets {shown('.'.join(map(str, first['loc'])), quoted=False)} to "
            f"{shown(first['input'])}: {first['msg']}. "
            f"What can be set is {known}."
        ) from error
    if spec.sigmas is not None:
        require_levels(spec.sigmas)
    if spec.sigmas is not None and spec.steps not in (None, len(spec.sigmas)):
        raise ConfigError(f"{asked} has {len(spec.sigmas)} sigmas but steps={spec.steps}; leave steps out.")
    if spec.name is not None and not re.fullmatch(r"\w[\w. -]*", spec.name):
        raise ConfigError(
            f"{asked} sets name to {shown(spec.name)}, which is to be a folder's name too; use letters, digits, "
            "dots, hyphens and underscores."
        )
    return spec
