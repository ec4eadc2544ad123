"""What makes two runs the same run: the settings without those that a resume may change."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from fewstep.config.layers import DISCRIMINATORS
from fewstep.config.run_config import DrawConfig, RunConfig
from fewstep.config.schema import alternatives
from fewstep.methods.simulation import SimulationConfig
from fewstep.section import Changeable

_CHANGEABLE = frozenset(
    name
    for name, field in RunConfig.model_fields.items()
    if any(issubclass(kind, Changeable) for kind in alternatives(field.annotation))
)
"""The sections that a resume may change."""

_ANY = "*"
"""In the place of a name: every one that is there."""

_LATER: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("precision", "frozen"), None),
    (("student", "moments"), "fp32"),
    (("fake_score", "moments"), "fp32"),
    (("prompts", "task"), "digits"),
    (("draw",), DrawConfig().model_dump(mode="json")),
    (("schedule", "length"), None),
    (("backbone", "lora"), []),
    (("backbone", "components"), None),
    (("backbone", "sizes"), []),
    (("student", "init"), None),
    (("simulation",), SimulationConfig().model_dump(mode="json")),
    (("terms", "dp"), None),
    (("terms", _ANY, "probe_of"), "answer"),
    (("terms", _ANY, "warmup"), 0),
    (("terms", _ANY, "normalise_over"), 1),
    (("terms", _ANY, "renormalise"), None),
    (("terms", _ANY, "query", "of"), "anchor"),  # of off-trajectory points
    (("terms", _ANY, "query", "of"), "final"),  # of re-noised samples
)
"""Settings that came after runs had been named: with these values they compute what there was before them."""


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that a run cannot change, as plain data; what came later counts where it says something else."""
    settings = _unchangeable(config)
    for (*sections, key), before in _LATER:
        for section in _sections(settings, sections):
            if section.get(key, before) == before:
                section.pop(key, None)
    return settings


def _sections(settings: dict[str, Any], names: list[str]) -> Iterator[dict[str, Any]]:
    """The sections of this path that are there and on."""
    if not names:
        yield settings
        return
    inner = settings.values() if names[0] == _ANY else [settings.get(names[0])]
    for section in inner:
        if isinstance(section, dict):
            yield from _sections(section, names[1:])


def config_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits that name the run folder."""
    return _hash(config, True, True, True)


def earlier_hashes(config: RunConfig) -> list[str]:
    """Every name that the run may have from when memory was part of it, the one of its own settings first."""
    memory = config.memory
    own = (memory.recomputation, memory.keeps_anchor_graph(1), memory.batch_frozen_calls)
    checkpointing: tuple[bool | str, ...] = (True, False, "selective")
    every = itertools.product(checkpointing, (True, False), (True, False))
    return [_hash(config, *values) for values in sorted(every, key=lambda values: values != own)]


def _hash(config: RunConfig, checkpointing: bool | str, keep_anchor_graph: bool, batch_frozen_calls: bool) -> str:
    # names were made of three settings that only concern memory: constants now, so that they stay
    savings = {"keep_anchor_graph": keep_anchor_graph, "batch_frozen_calls": batch_frozen_calls}
    named = {**identity(config), "gradient_checkpointing": checkpointing, "savings": savings}
    canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def config_difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines such as ``student.lr: 1e-05 -> 2e-05`` for the settings that a run cannot change."""
    found = _differing([_unchangeable(old), _unchangeable(new)], "")
    return [f"{path}: {shown_setting(before)} -> {shown_setting(after)}" for path, (before, after) in found]


def differing_settings(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """The settings that are not the same in all of these, those that a resume may change included.

    Returns:
        By path, the plain value of each; a choice of several kinds is one setting.
    """
    return dict(_differing([config.model_dump(mode="json") for config in configs], ""))


def _unchangeable(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=set(_CHANGEABLE))


def _differing(values: list[Any], path: str) -> Iterator[tuple[str, list[Any]]]:
    """A choice that changed its kind is one difference; otherwise every changed value is one."""
    if all(isinstance(value, dict) and _kind(value) == _kind(values[0]) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differing([value.get(key) for value in values], f"{path}.{key}" if path else key)
    elif any(value != values[0] for value in values):
        yield path, values


def _kind(settings: dict[str, Any]) -> list[Any]:
    return [settings.get(key) for key in DISCRIMINATORS]


def shown_setting(value: Any) -> str:
    """A plain value as a recipe writes it."""
    return json.dumps(value, ensure_ascii=False)
