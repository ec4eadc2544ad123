"""A run's student: which checkpoint, which weights, and putting them into a network without a single name left over."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.lora_merge import teacher_files
from fewstep.backbones.protocol import BackboneConfig
from fewstep.config.run_config import RunConfig
from fewstep.errors import CheckpointError, ConfigError
from fewstep.roles.lora import product
from fewstep.roles.weights import StartFromLora, StartFromModel
from fewstep.runs.checkpoint import (
    BEST,
    LATEST,
    StoredTensors,
    checkpoints,
    is_published,
    pointed_to,
    stored_steps,
    stored_tensors,
)
from fewstep.runs.folder import RunFolder


@dataclass(frozen=True)
class _TrainedStudent:
    """What a run has to export.

    Attributes:
        config: The run's settings.
        weights: The student's average where the run kept one, else its weights, float32, on disk.
        provenance: Plain data that says which run and which code made them.
    """

    config: RunConfig
    weights: StoredTensors
    provenance: dict[str, Any]


def read_student(run: str | Path) -> _TrainedStudent:
    """Read the student of a run folder's newest checkpoint, or of one checkpoint folder.

    Raises:
        ConfigError: There is no run there, or it has no checkpoint yet.
        CheckpointError: The checkpoint is damaged; the message names the file.
    """
    path = Path(run)
    if path.name in (LATEST, BEST) and path.parent.name == "checkpoints":
        path = pointed_to(path) or path
    is_checkpoint = is_published(path.name) and path.parent.name == "checkpoints"
    folder = RunFolder.open(path.parent.parent if is_checkpoint else path)
    published = [path] if is_checkpoint else checkpoints(folder.checkpoints)
    if not published:
        raise ConfigError(f"The run {path} has no checkpoint to export yet; go on with it with --resume.")
    folder.require_same_files(teacher_files(folder.config.backbone))
    newest = published[-1]
    section = "student" if folder.config.student.ema is None else "ema"
    weights = stored_tensors(newest, section)
    return _TrainedStudent(folder.config, weights, _provenance(folder, stored_steps(newest, weights.seals)))


@torch.no_grad()
def merge_factors(network: nn.Module, factors: Mapping[str, Tensor], *, scaling: float, origin: str) -> None:
    """Add low-rank factors to the weights of ``network``, in place: ``W + scaling B A``.

    Args:
        factors: By name: ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``.
        scaling: The factor on B A.
        origin: Named by the error.

    Raises:
        CheckpointError: A factor has no layer or no partner, or a shape differs.
    """
    places = dict(network.named_parameters())
    layers = sorted({name.partition(".lora_")[0] for name in factors})
    for layer in layers:
        weight = places.get(f"{layer}.weight")
        pair = [factors.get(f"{layer}.lora_{letter}.weight") for letter in "BA"]
        if weight is None or pair[0] is None or pair[1] is None or len(pair[0]) != len(weight):
            raise CheckpointError(
                f"The student of {origin} does not fit its network: the factors of {layer} have no layer of their size "
                "there. Export with the recipe and the version of fewstep that trained it."
            )
        weight.add_(product(pair[0], pair[1], scaling=scaling, shape=weight.shape))


def put_weights(
    network: nn.Module, shapes: Mapping[str, Tensor], parts: Iterable[Mapping[str, Tensor]], *, origin: str
) -> None:
    """Overwrite every parameter of ``network``, in place.

    Args:
        shapes: Every parameter by name, empty or not; buffers may be among them.
        parts: Their values, some at a time, so that they are never all in memory beside the network.
        origin: Named by the error.

    Raises:
        CheckpointError: A parameter is missing, a name is unknown, or a shape differs.
    """
    parameters = dict(network.named_parameters())
    places = {**parameters, **dict(network.named_buffers())}
    missing, unknown = sorted(parameters.keys() - shapes.keys()), sorted(shapes.keys() - places.keys())
    reshaped = sorted(name for name in places.keys() & shapes.keys() if places[name].shape != shapes[name].shape)
    if missing or unknown or reshaped:
        raise CheckpointError(
            f"The student of {origin} does not fit its network: {len(missing)} weights are missing, {len(unknown)} "
            f"unknown and {len(reshaped)} of another shape, first {(missing + unknown + reshaped)[0]}. "
            "Export with the recipe and the version of fewstep that trained it."
        )
    with torch.no_grad():
        for part in parts:
            for name, value in part.items():
                places[name].copy_(value)


def _public_name(model: str) -> str:
    """A repository id as it is; of a local folder only its own name, because the rest is somebody's machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _merged_loras(backbone: BackboneConfig) -> dict[str, str]:
    told = [f"{_public_name(lora.path)} at scale {lora.scale:g}" for lora in backbone.lora]
    return {"teacher_lora": ", ".join(told)} if told else {}


def _start(start: StartFromLora | StartFromModel | None) -> dict[str, str]:
    match start:
        case None:
            return {}
        case StartFromLora():
            return {"started_from": f"the teacher with {_public_name(start.lora)} at scale {start.scale:g}"}
        case StartFromModel():
            return {"started_from": _public_name(start.model)}


def _provenance(folder: RunFolder, steps: int) -> dict[str, Any]:
    facts = folder.facts
    code = facts["sessions"][-1]
    return {
        "recipe": facts["recipe"],
        "config_hash": facts["config_hash"],
        "steps": steps,
        "student_updates": steps // folder.config.student.every,
        "teacher": _public_name(folder.config.backbone.model),
        "teacher_revision": folder.config.backbone.revision,
        **_merged_loras(folder.config.backbone),
        **_start(folder.config.student.init),
        "fewstep": code["fewstep"],
        "git": code["git"],
    }
