"""A whole run on a tiny real SD3 pipeline: seconds on a CPU."""

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fewstep.config.recipe import Recipe, load_recipe
from fewstep.runs.checkpoint import load_checkpoint
from fewstep.runs.folder import RunFolder
from fewstep.runs.places import checkpoints
from fewstep.training.run import train
from fewstep.training.trainer import StepReport, Trainer
from tests.backbones import tiny

PROMPTS = ["a red cat", "a blue dog", "two birds", "a green hat", "the sea"]


def pipeline(blocks: int = 2) -> Any:
    """The teacher of the tiny run: one block of each kind unless more are asked for."""
    return tiny.sd3_pipeline(t5=False, blocks=blocks)


def write_inputs(folder: Path, blocks: int = 2) -> Path:
    """A teacher, a prompt file and a recipe in ``folder``; returns the recipe's path."""
    tiny.save(pipeline(blocks), folder / "teacher")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    recipe = {
        "backbone": {
            "kind": "sd3",
            "model": str(folder / "teacher"),
            "height": 16,
            "width": 16,
            "max_sequence_length": 1,
        },
        "prompts": {"kind": "file", "path": "prompts.txt"},
        "schedule": {"kind": "random_length", "min_steps": 1, "max_steps": 5},
        "terms": {"ca": {"scale": 2.0}, "dm": {}, "cdm": {}},
        "student": {"lr": 1e-3, "every": 2, "warmup": 2},
        "fake_score": {"lr": 1e-3, "warmup": 2},
        "batch": 4,
        "budget": {"student_updates": 3},
        "precision": {"compute": "fp32"},
        "memory": {"gradient_checkpointing": False},
        "sampling": {"teacher_steps": 3},
        "report": {"trackers": []},
        # test_health.py asks for it: figures of nearly equal predictions repeat to fewer digits than losses
        "health": None,
        # saved at the end alone: a save costs more than two of these steps
        "checkpoint": {"keep_last": 10},
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


def recipe(folder: Path, *overrides: str) -> Recipe:
    path = folder / "tiny.yaml"
    return load_recipe(path if path.exists() else write_inputs(folder), overrides)


def run(made: Recipe, output: Path, **options: Any) -> RunFolder:
    return train(made, output=output, console=Console(file=io.StringIO()), **options)


def run_stopped_after(made: Recipe, output: Path, *, steps: int) -> None:
    """A run that gets SIGTERM during one of its steps, as from a scheduler, and saves."""
    step = Trainer.run_step

    def terminated_after(trainer: Trainer, **asked: bool) -> StepReport:
        report = step(trainer, **asked)
        if trainer.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_step", terminated_after)
        run(made, output)


def saved_state(run_folder: Path, index: int = -1) -> dict[str, Any]:
    """Everything a checkpoint holds, flat by name."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    checkpoint = checkpoints(run_folder / "checkpoints")[index]
    metadata = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state: dict[str, Any] = {}
    for key, stored in metadata.items():
        if isinstance(stored, TensorStorageMetadata):
            state[key] = torch.zeros(stored.size, dtype=stored.properties.dtype)
        else:
            state[key] = 0
    load_checkpoint(checkpoint, state)
    return state
