"""Which models an evaluation compares, and how each is drawn: told by the command line, completed by its own files."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fewstep.backbones.refused import few_steps
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.source import Checkpoint, embedded_task, locate, open_checkpoint
from fewstep.backbones.stock import guidance_of, pipeline_class
from fewstep.bounds import DtypeName
from fewstep.errors import ConfigError
from fewstep.sampling.model_spec import ModelSpec
from fewstep.seals import fingerprint
from fewstep.section import Section

Side = Literal["student", "teacher", "pictures"]
"""What a row is about: a model, what it was distilled from, or pictures that somebody else drew."""


class Sampling(Section):
    """How a model's pictures are drawn, every choice made; of pictures that somebody else drew only their size."""

    sampler: Literal["own", "stock", "given"]
    steps: int | None = Field(description="None where the pictures are given")
    sigmas: tuple[float, ...] | None = Field(description="as stated by the user; None is the model's own grid")
    guidance_scale: float | None = Field(description="None where there is none, or nobody knows")
    height: int
    width: int
    frames: int | None = Field(default=None, description="of a clip; None where pictures are drawn")
    lora: str | None
    lora_scale: float
    dtype: DtypeName | None = Field(description="None where the pictures are given")


class ModelEntry(Section):
    """One model of an evaluation, with everything that its pictures depend on besides prompts and seeds."""

    name: str
    role: Side
    model: str
    fingerprint: str = Field(description="of a local folder's content, or of given pictures; a repository's id")
    sampling: Sampling


def resolve(spec: ModelSpec, role: Side) -> ModelEntry:
    """Complete a spec from the model's JSON files; no weight is loaded.

    Raises:
        ConfigError: The model cannot be opened, is a run that was not exported, or leaves something open.
    """
    checkpoint = _open(spec)
    # LoRA factors and foreign schedules are the stock pipeline's business
    ours = (checkpoint.facts is not None or few_steps(spec.model) is not None) and spec.lora is None
    sampler = ("own" if ours else "stock") if spec.sampler == "auto" else spec.sampler
    if sampler == "own" and spec.lora is not None:
        raise ConfigError(f"{spec.model} is asked for with a LoRA and sampler=own; factors need sampler=stock.")
    height, width = _size(spec, checkpoint)
    sampling = Sampling(
        sampler=sampler,
        steps=_steps(spec, checkpoint),
        sigmas=spec.sigmas,
        guidance_scale=_guidance(spec, checkpoint),
        height=height,
        width=width,
        frames=_frames(spec, checkpoint),
        lora=None if spec.lora is None else fingerprint(spec.lora),
        lora_scale=spec.lora_scale,
        dtype=spec.dtype,
    )
    return ModelEntry(
        name=spec.name or short_name(spec.model, lora=spec.lora),
        role=role,
        model=spec.model,
        fingerprint=fingerprint(locate(spec.model)),
        sampling=sampling,
    )


def _open(spec: ModelSpec) -> Checkpoint:
    if (Path(spec.model) / "run.json").is_file():
        raise ConfigError(
            f"{spec.model} is the folder of a run; export its student first: "
            f"fewstep export {spec.model} --output out/student"
        )
    return open_checkpoint(spec.model)


def find_teacher(specs: Sequence[ModelSpec]) -> ModelSpec | None:
    """The teacher that a student's own ``fewstep.json`` names, or None when none does.

    An embedded teacher is its own: with other steps or another guidance it is compared with itself.
    """
    for spec in specs:
        if embedded_task(spec.model) is not None:
            return ModelSpec(model=spec.model, name="teacher", dtype=spec.dtype)
        facts = _open(spec).facts
        named = facts.provenance.get("teacher") if facts is not None and facts.role == "student" else None
        if isinstance(named, str) and named:
            merged = facts.provenance.get("teacher_lora") if facts is not None else None
            if merged:
                raise ConfigError(
                    f"The teacher of {spec.model} is {named} with LoRAs merged into it ({merged}), which no file of it "
                    "holds; say how to draw with it: --teacher MODEL,lora=FILE,lora_scale=SCALE."
                )
            return ModelSpec(model=named, name="teacher", dtype=spec.dtype)
    return None


def require_distinct_names(entries: Sequence[ModelEntry]) -> None:
    """Raise ConfigError when two models would share a row."""
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise ConfigError(
                f"Two models are called {entry.name}; name one of them: "
                f"{'--pictures' if entry.role == 'pictures' else '--model'} {entry.model},name=another-name."
            )
        seen.add(entry.name)


def short_name(model: str, *, lora: str | None = None) -> str:
    """What a model, or a folder of pictures, is called where nobody names it: the last part of its place."""
    last = re.split(r"[/\\:]", model.rstrip("/\\"))[-1]
    if not last.strip("."):  # the folder where one stands, or one above it: as a name it would lead out of its place
        last = Path(model).resolve().name or "model"
    if lora is not None:
        last = f"{last}-{Path(lora).stem}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)


def _steps(spec: ModelSpec, checkpoint: Checkpoint) -> int:
    if spec.sigmas is not None:
        return len(spec.sigmas)
    if spec.steps is not None:
        return spec.steps
    facts = checkpoint.facts
    if facts is not None and (facts.sigmas is not None or facts.steps is not None):
        return len(facts.sigmas) if facts.sigmas is not None else int(facts.steps or 0)
    return few_steps(spec.model) or int(_call_default(spec, checkpoint, "num_inference_steps", "steps"))


def _guidance(spec: ModelSpec, checkpoint: Checkpoint) -> float | None:
    if spec.guidance_scale is not None:
        return spec.guidance_scale
    if checkpoint.facts is not None:
        return checkpoint.facts.guidance_scale
    guidance = guidance_of(checkpoint)
    if few_steps(spec.model) is not None:
        return guidance.off
    if guidance.argument not in _call_parameters(checkpoint):
        return None
    scale = guidance.default_scale(pipeline_class(checkpoint))
    if scale is None:
        raise _says_nothing(spec, "guidance_scale")
    return scale


def _size(spec: ModelSpec, checkpoint: Checkpoint) -> tuple[int, int]:
    if spec.height is not None and spec.width is not None:
        return spec.height, spec.width
    try:
        config = create_model_adapter(spec.model, as_teacher=False).config
    except ConfigError as error:
        raise ConfigError(
            f"The size of the pictures of {spec.model}, a {checkpoint.pipeline_class}, is not known; "
            f"say it: --model {spec.model},height=1024,width=1024."
        ) from error
    return spec.height or config.height, spec.width or config.width


def _frames(spec: ModelSpec, checkpoint: Checkpoint) -> int | None:
    """Of a clip; None where the pipeline's call makes pictures."""
    if "num_frames" not in _call_parameters(checkpoint):
        if spec.frames is not None:
            raise ConfigError(
                f"{spec.model} makes pictures, and --model gives it frames={spec.frames}; leave that out."
            )
        return None
    try:
        adapter = create_model_adapter(spec.model, as_teacher=False)
    except ConfigError:  # no backbone serves it, and its own pipeline draws
        return spec.frames or int(_call_default(spec, checkpoint, "num_frames", "frames"))
    sized = adapter.at_size(adapter.config.height, adapter.config.width, frames=spec.frames)
    sized.latent_shape(sized.config.height, sized.config.width)  # frames that do not fit are told before any is drawn
    return sized.frames or int(_call_default(spec, checkpoint, "num_frames", "frames"))


def _call_parameters(checkpoint: Checkpoint) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(pipeline_class(checkpoint).__call__).parameters)


def _call_default(spec: ModelSpec, checkpoint: Checkpoint, parameter: str, key: str) -> Any:
    found = _call_parameters(checkpoint).get(parameter)
    if found is None or found.default in (None, inspect.Parameter.empty):
        raise _says_nothing(spec, key)
    return found.default


def _says_nothing(spec: ModelSpec, key: str) -> ConfigError:
    return ConfigError(f"{spec.model} does not say its {key}; say it: --model {spec.model},{key}=VALUE.")
