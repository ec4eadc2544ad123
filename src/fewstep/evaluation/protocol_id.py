"""Under what conditions a score was measured, as one short id: scores of different ids are not compared.

The id covers prompts, seeds, resolution, steps, guidance, precision, versions and the metric's settings. What changes
only memory and speed (batch sizes, ranks, devices) is left out, and so is the model: models measured alike share it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import fewstep
from fewstep.errors import ConfigError
from fewstep.evaluation.models import Sampling, Side
from fewstep.scores.metric import Metric
from fewstep.seals import fingerprint

_PACKAGES = ("torch", "diffusers", "transformers")
_NOT_MEASURED = {"batch", "frames", "allow_pickle", "revision", "source"}
_ID_LENGTH = 12
_BY_DESIGN = ("steps", "sigmas", "guidance_scale")
"""In what a student and its teacher may differ."""
_UNTOLD = ("dtype", "versions")
"""What nobody knows of pictures that somebody else drew."""


@dataclass(frozen=True)
class PictureOrigin:
    """How a model's pictures came about.

    Attributes:
        prompts: Name of the prompt set.
        prompts_digest: Of its ids, texts and facts.
        seeds: One picture per prompt and seed.
        sampling: How the model was origin.
        versions: Of the software that drew.
    """

    prompts: str
    prompts_digest: str
    seeds: tuple[int, ...]
    sampling: Sampling
    versions: Mapping[str, str]


@dataclass(frozen=True)
class ProtocolId:
    """The id of one score.

    Attributes:
        whole: Of all conditions.
        shared: Of those that a student and its teacher share: all but steps, sigmas and guidance, in which they differ
            by design.
        seen: Of those that are known whoever drew: prompts, seeds, resolution and the metric's own.
    """

    whole: str
    shared: str
    seen: str


@dataclass(frozen=True)
class Measured:
    """Whose score it is, and under which id: what a comparison looks at."""

    model: str
    role: Side
    metric: str
    id: ProtocolId
    conditions: Mapping[str, Any]


def versions(extra: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of what numbers depend on."""
    found = {"fewstep": fewstep.__version__}
    for name in (*_PACKAGES, *extra):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def metric_conditions(metric: Metric) -> dict[str, Any]:
    """What a metric's number depends on: settings, checkpoint, what it says of itself, versions.

    A path stands for its content, so that the same files give the same id on another machine.
    """
    settings = metric.settings
    chosen = {
        key: _content(value) for key, value in settings.model_dump(mode="json").items() if key not in _NOT_MEASURED
    }
    checkpoint = None if metric.source is None else _content(metric.source)
    return {
        "name": metric.card.name,
        "settings": chosen,
        "checkpoint": checkpoint,
        "revision": settings.revision,
        "identity": dict(metric.identity()),
        "versions": versions(metric.card.packages),
    }


def conditions(origin: PictureOrigin, measured: Mapping[str, Any], *, looked_at: str = "all") -> dict[str, Any]:
    """Everything that goes into an id, as plain data.

    Args:
        looked_at: The frames of a clip that the metric looks at, as its settings name them.
    """
    sampling = origin.sampling
    clips = {} if sampling.frames is None else {"frames": {"of_a_clip": sampling.frames, "looked_at": looked_at}}
    return {
        "prompts": origin.prompts_digest,
        "seeds": list(origin.seeds),
        "resolution": [sampling.height, sampling.width],
        "dtype": sampling.dtype,
        "versions": dict(origin.versions),
        "metric": dict(measured),
        "steps": sampling.steps,
        "sigmas": None if sampling.sigmas is None else list(sampling.sigmas),
        "guidance_scale": sampling.guidance_scale,
        **clips,
    }


def protocol_id(known: Mapping[str, Any]) -> ProtocolId:
    """Hash conditions."""
    shared = {key: value for key, value in known.items() if key not in _BY_DESIGN}
    seen = {key: value for key, value in shared.items() if key not in _UNTOLD}
    return ProtocolId(whole=short_hash(known), shared=short_hash(shared), seen=short_hash(seen))


def short_hash(value: Any) -> str:
    """Hash plain data, by its canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]


def require_comparable(scores: Sequence[Measured], *, allow_different: bool = False) -> list[str]:
    """Refuse to put scores of one metric side by side that were measured differently.

    Models of one role must share the whole id; a student and its teacher all of it but steps, sigmas and guidance;
    given pictures and a model what is known of both.

    Returns:
        The differences, one sentence each; empty unless ``allow_different``.

    Raises:
        ConfigError: The scores differ and ``allow_different`` is False; the first difference is named.
    """
    found: list[str] = []
    first: dict[tuple[str, str], Measured] = {}
    for score in scores:
        drawn_here = () if score.role == "pictures" else (("drawn here", "shared"),)
        for place, part in ((score.role, "whole"), *drawn_here, ("any", "seen")):
            other = first.setdefault((score.metric, place), score)
            if getattr(other.id, part) != getattr(score.id, part):
                found.append(_difference(other, score))
                break
    if found and not allow_different:
        raise ConfigError(
            f"{found[0]} Measure them alike, or compare them all the same with --allow-different-protocols."
        )
    return found


def _difference(a: Measured, b: Measured) -> str:
    parts = [f"{key} {_brief(a.conditions.get(key))} and {_brief(b.conditions.get(key))}" for key in _unequal(a, b)]
    return (
        f"{a.metric} of {a.model} and of {b.model} were measured under different protocols "
        f"({a.id.whole} and {b.id.whole}): {'; '.join(parts)}."
    )


def _unequal(a: Measured, b: Measured) -> list[str]:
    by_design = set(_BY_DESIGN) if a.role != b.role else set()
    by_design |= set(_UNTOLD) if "pictures" in (a.role, b.role) else set()
    keys = dict.fromkeys((*a.conditions, *b.conditions))
    return [key for key in keys if key not in by_design and a.conditions.get(key) != b.conditions.get(key)]


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}... (hash {short_hash(value)})"


def _content(value: Any) -> Any:
    """A path as its content; other settings, also nested ones, as they are."""
    if isinstance(value, str):
        return fingerprint(value) if os.path.exists(value) else value
    if isinstance(value, Mapping):
        return {key: _content(inner) for key, inner in value.items()}
    return [_content(inner) for inner in value] if isinstance(value, list) else value
