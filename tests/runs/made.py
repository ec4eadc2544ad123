"""Folders of runs as a training leaves them, without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewstep.config.recipe import load_recipe
from fewstep.runs.folder import RunFolder


def line(step: int, **losses: float) -> dict[str, Any]:
    """A line of metrics.jsonl; the losses without their prefix."""
    return {"step": step, "num_anchors": 3, **{f"loss/{name}": value for name, value in losses.items()}}


def made_run(
    root: Path, *overrides: str, lines: Sequence[dict[str, Any]] = (), saved: Sequence[int] = (), name: str = ""
) -> Path:
    """A run of ten updates of the recipe digits, two steps each.

    Args:
        lines: Of metrics.jsonl.
        saved: Steps of the checkpoints, which are empty.
        name: Of the folder, instead of the run's own.
    """
    config = load_recipe("digits", ["budget.student_updates=10", *overrides]).config
    with RunFolder.create(root, "digits", config, path=root / name if name else None) as folder:
        if lines:
            folder.metrics.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
        for step in saved:
            (folder.checkpoints / f"step-{step:08d}").mkdir(parents=True)
    return folder.path
