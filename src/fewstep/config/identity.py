"""What makes two runs the same run: the settings without budget, reporting, saving and place of computation."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fewstep.config.layers import DISCRIMINATORS
from fewstep.config.run_config import DrawConfig, RunConfig

CHANGEABLE = frozenset({"budget", "report", "evaluation", "checkpoint", "parallel"})
"""Sections that a resume may change: they decide how long a run is and what is told about it, not what it computes."""


_LATER: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("draw",), DrawConfig().model_dump(mode="json")),
    (("schedule", "length"), None),
    (("backbone", "lora"), []),
    (("backbone", "components"), None),
    (("student", "init"), None),
)
"""Settings that came after runs had been named: with these values they compute what there was before them."""


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that a run cannot change, as plain data; what came later counts where it says something else."""
    settings = _unchangeable(config)
    for (*sections, key), before in _LATER:
        section = settings
        for name in sections:
            section = section[name]
        if section.get(key, before) == before:
            section.pop(key, None)
    return settings


def config_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits that name the run folder."""
    canonical = json.dumps(identity(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def config_difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines such as ``student.lr: 1e-05 -> 2e-05`` for the settings that a run cannot change."""
    return list(_differences(_unchangeable(old), _unchangeable(new), ""))


def _unchangeable(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=set(CHANGEABLE))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """A choice that changed its kind is one line; otherwise every changed value is one."""
    if isinstance(old, dict) and isinstance(new, dict) and _kind(old) == _kind(new):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _kind(settings: dict[str, Any]) -> list[Any]:
    return [settings.get(key) for key in DISCRIMINATORS]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
