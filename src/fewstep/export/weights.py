"""A run's student: which checkpoint, which weights, and putting them into a network without a single name left over."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.config.run_config import RunConfig
from fewstep.errors import CheckpointError, ConfigError
from fewstep.runs.folder import RunFolder
from fewstep.training.checkpoint import checkpoints, completed_steps, load_tensors


@dataclass(frozen=True)
class TrainedStudent:
    """What a run has to export.

    Attributes:
        config: The run's settings.
        weights: The student's average where the run kept one, else its weights, float32, by parameter name.
        provenance: Plain data that says which run and which code made them.
    """

    config: RunConfig
    weights: dict[str, Tensor]
    provenance: dict[str, Any]


def read_student(run: str | Path) -> TrainedStudent:
    """Read the student of a run folder's newest checkpoint, or of one checkpoint folder.

    Raises:
        ConfigError: There is no run there, or it has no checkpoint yet.
        CheckpointError: The checkpoint is damaged; the message names the file.
    """
    path = Path(run)
    is_checkpoint = path.name.startswith("step-") and path.parent.name == "checkpoints"
    folder = RunFolder.open(path.parent.parent if is_checkpoint else path)
    published = [path] if is_checkpoint else checkpoints(folder.checkpoints)
    if not published:
        raise ConfigError(f"The run {path} has no checkpoint to export yet; go on with it with --resume.")
    newest = published[-1]
    weights = load_tensors(newest, "ema") or load_tensors(newest, "student")
    return TrainedStudent(folder.config, weights, _provenance(folder, newest))


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], *, origin: str) -> None:
    """Overwrite every parameter of ``network``, in place.

    Args:
        weights: Every parameter by name; buffers may be among them.
        origin: Named by the error.

    Raises:
        CheckpointError: A parameter is missing, a name is unknown, or a shape differs.
    """
    parameters = dict(network.named_parameters())
    places = {**parameters, **dict(network.named_buffers())}
    missing, unknown = sorted(parameters.keys() - weights.keys()), sorted(weights.keys() - places.keys())
    reshaped = sorted(name for name in places.keys() & weights.keys() if places[name].shape != weights[name].shape)
    if missing or unknown or reshaped:
        raise CheckpointError(
            f"The student of {origin} does not fit its network: {len(missing)} weights are missing, {len(unknown)} "
            f"unknown and {len(reshaped)} of another shape, first {(missing + unknown + reshaped)[0]}. "
            "Export with the recipe and the version of fewstep that trained it."
        )
    with torch.no_grad():
        for name, value in weights.items():
            places[name].copy_(value)


def _public_name(model: str) -> str:
    """A repository id as it is; of a local folder only its own name, because the rest is somebody's machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _provenance(folder: RunFolder, checkpoint: Path) -> dict[str, Any]:
    facts, steps = folder.facts, completed_steps(checkpoint)
    code = facts["sessions"][-1]
    return {
        "recipe": facts["recipe"],
        "config_hash": facts["config_hash"],
        "steps": steps,
        "student_updates": steps // folder.config.student.every,
        "teacher": _public_name(folder.config.backbone.model),
        "teacher_revision": folder.config.backbone.revision,
        "fewstep": code["fewstep"],
        "git": code["git"],
    }
