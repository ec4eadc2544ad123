"""Settings that lay elsewhere: run folders from then are read, and who still states them is told where they are."""

from collections.abc import Mapping
from typing import Any

from fewstep.config.layers import merge

_TO_MEMORY = (
    "gradient_checkpointing",
    *("savings.keep_anchor_graph", "savings.batch_frozen_calls"),
    *("parallel.microbatch", "parallel.offload", "parallel.prefetch", "parallel.compiled"),
)
_TENSORBOARD = "tensorboard"  # true was: where it is installed


def moved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, each where it is now."""
    found, memory = dict(settings), {}
    for name in _TO_MEMORY:
        section, _, key = name.rpartition(".")
        holder = found.get(section) if section else found
        if isinstance(holder, dict) and key in holder:
            memory[key] = holder[key]
            rest = {other: value for other, value in holder.items() if other != key}
            found = {**found, section: rest} if section else rest
    if memory and found.get("savings") == {}:
        del found["savings"]
    report = found.get("report")
    if isinstance(report, dict) and isinstance(written := report.get(_TENSORBOARD), bool):
        rest = {key: value for key, value in report.items() if key != _TENSORBOARD}
        found["report"] = rest if written else {"trackers": [], **rest}
    return merge(found, {"memory": memory}) if memory else found


def names_now(path: str) -> list[str]:
    """What the setting or section that was called ``path`` is called now; nothing for any other text."""
    if path == f"report.{_TENSORBOARD}":
        return ["report.trackers"]
    return [f"memory.{name.rpartition('.')[2]}" for name in _TO_MEMORY if f"{name}.".startswith(f"{path}.")]
