"""What is asked to be drawn: one frozen request, made of a call's arguments or of a command line's words."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from fewstep.backbones.lora_source import LoraSource
from fewstep.bounds import Batch, Frames, GuidanceScale, Name, Pixels, Scale, Seed, Steps, most, require_within
from fewstep.errors import ConfigError, shown
from fewstep.prompts.text import require_prompt
from fewstep.sampling.model_spec import ModelSpec, parse_spec
from fewstep.sampling.sampler import require_levels
from fewstep.section import Section

_S = TypeVar("_S", bound=Section)
_MAX_LORAS = 100
_KINDS: Mapping[str, Any] = {
    "steps": Steps,
    "seed": Seed,
    "guidance_scale": GuidanceScale,
    "height": Pixels,
    "width": Pixels,
    "frames": Frames,
    "batch": Batch,
}


class Drawing(Section):
    """A model, and how its pictures are drawn. What is None in ``model`` follows from the model's own files."""

    model: ModelSpec
    lora: tuple[LoraSource, ...] = Field(default=(), max_length=_MAX_LORAS, description="on top, in this order")
    negative_prompt: str | None = Field(default=None, description="what every picture is guided away from")
    seed: Seed = 0
    batch: Batch = Field(default=16, description="pictures per network call")
    device: Name = Field(default="auto", description="of torch; auto is the fastest one")
    offload: bool = Field(default=False, description="never two of text encoders, network and VAE in memory")

    @property
    def loras(self) -> tuple[LoraSource, ...]:
        """Every LoRA, that of the model's own words first."""
        own = self.model.lora
        return (*([] if own is None else [LoraSource(path=own, scale=self.model.lora_scale)]), *self.lora)

    def beside(self, other: str) -> "Drawing":
        """The same request to ``MODEL[,KEY=VALUE...]``, in this one's size and dtype unless it says them.

        Raises:
            ConfigError: The words cannot be read.
        """
        shared = ("height", "width", "frames", "dtype")
        own = {name: getattr(self.model, name) for name in shared if name in self.model.model_fields_set}
        spec = _spec(other, option="--compare")
        model = spec.model_copy(update={name: own[name] for name in own.keys() - spec.model_fields_set})
        return self.model_copy(update={"model": model, "lora": ()})


def drawing_of(model: str | Path | Drawing, said: Mapping[str, Any]) -> Drawing:
    """The request that arguments make.

    Args:
        model: ``MODEL`` or ``MODEL,KEY=VALUE,...``; or a whole request.
        said: Fields of :class:`Drawing` and :class:`ModelSpec`, and ``size``; only what was given.

    Raises:
        ConfigError: A value is out of bounds, is no value of its kind, or something is said twice.
    """
    if isinstance(model, Drawing):
        if said:
            raise ConfigError(f"{min(said)} is given beside a Drawing, which says it already; put it into the Drawing.")
        return model
    given = dict(said)
    if "negative_prompt" in given:
        require_prompt(given["negative_prompt"], place="The negative prompt")
    if "size" in given:
        given["height"], given["width"] = parse_size(given.pop("size"))
    if "lora" in given:
        named = given["lora"]
        given["lora"] = tuple(parse_lora(one) for one in ([named] if isinstance(named, str | Path) else named))
    if "sigmas" in given:
        given["sigmas"] = parse_sigmas(given["sigmas"])
        if "steps" in given:
            raise ConfigError("steps and sigmas are both given; there are as many steps as sigmas, so leave steps out.")
    for name, kind in _KINDS.items():
        if name in given:
            require_within(given[name], name, kind)
    spec = _spec(str(model), option="MODEL")
    words = {name: given.pop(name) for name in list(given) if name in ModelSpec.model_fields and name != "lora"}
    for name, value in words.items():
        if name in spec.model_fields_set:
            raise ConfigError(
                f"{name} is {shown(value)}, and {shown(str(model))} says {shown(getattr(spec, name))}; say it once."
            )
    merged = _valid(ModelSpec, {**spec.model_dump(exclude_unset=True), **words})
    if merged.sigmas is not None and merged.steps not in (None, len(merged.sigmas)):
        raise ConfigError(f"There are {len(merged.sigmas)} sigmas but steps={merged.steps}; leave steps out.")
    return _valid(Drawing, {"model": merged, **given})


def _spec(text: str, *, option: str) -> ModelSpec:
    """A folder whose own name has a comma in it is meant as it stands."""
    whole = "," not in text or os.path.exists(text)
    spec = _valid(ModelSpec, {"model": text}) if whole else parse_spec(text, option=option)
    if spec.sampler == "stock":
        raise ConfigError(
            f"{option} {shown(text)} asks for sampler=stock, but pictures are drawn with fewstep's own loop here; "
            "leave it out, or draw with fewstep evaluate."
        )
    return spec


def parse_size(size: Any) -> tuple[int, int]:
    """Height and width in pixels, from ``768x1344`` or a pair.

    Raises:
        ConfigError: It is neither, or is out of bounds.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*", size) if isinstance(size, str) else None
    pair = [int(side) for side in found.groups()] if found else size
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ConfigError(f"size is {shown(size)}; write HEIGHTxWIDTH in pixels, such as 768x1344 for a wide picture.")
    for side, name in zip(pair, ("The height of size", "The width of size"), strict=True):
        require_within(side, name, Pixels)
    return pair[0], pair[1]


def parse_lora(text: str | Path | LoraSource) -> LoraSource:
    """``FILE:SCALE`` or ``FILE``, whose scale is 1; a drive's colon, as in ``C:\\style.safetensors``, is no scale's.

    Raises:
        ConfigError: There is no file, or the scale is out of bounds.
    """
    if isinstance(text, LoraSource):
        return text
    path, scale = str(text), 1.0
    before, colon, behind = path.rpartition(":")
    if colon and not os.path.exists(path):
        try:
            path, scale = before, float(behind)
        except ValueError:
            pass
        else:
            require_within(scale, f"The scale of the LoRA {shown(str(text))}", Scale)
    if not path:
        raise ConfigError(
            f"The LoRA {shown(str(text))} names no file; write FILE:SCALE, such as style.safetensors:0.8."
        )
    return _valid(LoraSource, {"path": path, "scale": scale})


def parse_sigmas(sigmas: Any) -> tuple[float, ...]:
    """Noise levels from ``1.0,0.9,0.75,0.5`` or a sequence of numbers.

    Raises:
        ConfigError: They are no numbers, too many, or do not descend in (0, 1].
    """
    parts = sigmas.split(",") if isinstance(sigmas, str) else sigmas
    try:
        levels = tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sigmas is {shown(sigmas)}; write numbers as in 1.0,0.9,0.75,0.5.") from error
    if len(levels) > most(Steps):
        raise ConfigError(f"There are {len(levels)} sigmas; {most(Steps)} are the most that a picture may have.")
    require_levels(levels)
    return levels


def _valid(kind: type[_S], values: Mapping[str, Any]) -> _S:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise ConfigError(f"{shown(place, quoted=False)} is {shown(first['input'])}: {said}.") from error
