"""A run's student: which checkpoint, which weights, and putting them into a network without a single name left over."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewstep.backbones.lora_merge import teacher_files
from fewstep.backbones.protocol import BackboneConfig
from fewstep.config.run_config import RunConfig
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.roles.lora import product
from fewstep.roles.weights import LoraWeights, StartFromLora, StartFromModel
from fewstep.runs.checkpoint import StoredTensors, stored_steps, stored_tensors
from fewstep.runs.folder import RunFolder
from fewstep.runs.places import BEST, LATEST, checkpoints, completed_steps, is_published, pointed_to


@dataclass(frozen=True)
class TrainedStudent:
    """What a run has to export.

    Attributes:
        folder: The run.
        steps: Of the checkpoint.
        weights: The student's average, or its weights, float32, on disk.
        provenance: Plain data that says which run and which code made them.
    """

    folder: RunFolder
    steps: int
    weights: StoredTensors
    provenance: dict[str, Any]

    @property
    def config(self) -> RunConfig:
        return self.folder.config


Kept = Literal["ema", "raw"]
"""The average of the student's weights, or the weights themselves."""


def read_student(run: str | Path, *, step: int | str | None = None, weights: Kept | None = None) -> TrainedStudent:
    """Read the student of one checkpoint of a run.

    Args:
        run: A run's folder, or one of its checkpoint folders.
        step: Which checkpoint of a run's folder: its number of steps, ``best`` or ``last``; None is the last.
        weights: The average or the weights themselves; None is the average where the run kept one.

    Raises:
        ConfigError: There is no run there, it has no such checkpoint, or it kept no average.
        CheckpointError: The checkpoint is damaged; the message names the file.
    """
    path = Path(run)
    if path.name in (LATEST, BEST) and path.parent.name == "checkpoints":
        path = pointed_to(path) or path
    is_checkpoint = is_published(path.name) and path.parent.name == "checkpoints"
    folder = RunFolder.open(path.parent.parent if is_checkpoint else path)
    if is_checkpoint and step is not None:
        raise ConfigError(f"{path} is one checkpoint already, so step ({step}) has nothing to choose; leave it out.")
    checkpoint = path if is_checkpoint else _chosen(folder, step)
    folder.require_same_files(teacher_files(folder.config.backbone))
    averaged = folder.config.student.ema is not None
    if weights == "ema" and not averaged:
        raise ConfigError(
            f"The run {folder.path} kept no average of its student (student.ema is null); export the weights "
            "themselves, with --weights raw."
        )
    stored = stored_tensors(checkpoint, "ema" if averaged and weights != "raw" else "student")
    steps = stored_steps(checkpoint, stored.seals)
    return TrainedStudent(folder, steps, stored, _provenance(folder, steps, averaged=stored.section == "ema"))


def _chosen(folder: RunFolder, step: int | str | None) -> Path:
    """The checkpoint of a run that a step names.

    Raises:
        ConfigError: There is none, with those that there are.
    """
    published = checkpoints(folder.checkpoints)
    if not published:
        raise ConfigError(f"The run {folder.path} has no checkpoint to export yet; go on with it with --resume.")
    named = {str(completed_steps(path)): path for path in published}
    best = pointed_to(folder.checkpoints / BEST)
    if best in published:
        named["best"] = best
    wanted = named | {"last": published[-1], "None": published[-1]}
    if str(step) in wanted:
        return wanted[str(step)]
    why = " (evaluation.keep_best names the metric that decides)" if step == "best" else ""
    raise ConfigError(
        f"The run {folder.path} has no checkpoint {shown(step, quoted=False)}{why}; it has {', '.join(named)}, and "
        f"last is {completed_steps(published[-1])}."
    )


def put_student(network: nn.Module, student: TrainedStudent, *, origin: str) -> None:
    """Turn ``network``, which holds the teacher, into the student, in place.

    Args:
        origin: Named by the error.

    Raises:
        CheckpointError: The student's weights are not those of this network.
    """
    trained = student.config.student.weights
    if isinstance(trained, LoraWeights):
        merge_factors(network, student.weights.all(), scaling=trained.scaling, origin=origin)
    else:
        put_weights(network, student.weights.empty, student.weights.parts(), origin=origin)


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
    require_fit(network, shapes, origin=origin)
    places = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for part in parts:
            for name, value in part.items():
                places[name].copy_(value)


def require_fit(network: nn.Module, shapes: Mapping[str, Tensor], *, origin: str) -> None:
    """Raise CheckpointError when a parameter is missing, a name is unknown, or a shape differs."""
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


def public_name(model: str) -> str:
    """A repository id as it is; of a local folder only its own name, because the rest is somebody's machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _merged_loras(backbone: BackboneConfig) -> dict[str, str]:
    told = [f"{public_name(lora.path)} at scale {lora.scale:g}" for lora in backbone.lora]
    return {"teacher_lora": ", ".join(told)} if told else {}


def _start(start: StartFromLora | StartFromModel | None) -> dict[str, str]:
    match start:
        case None:
            return {}
        case StartFromLora():
            return {"started_from": f"the teacher with {public_name(start.lora)} at scale {start.scale:g}"}
        case StartFromModel():
            return {"started_from": public_name(start.model)}


def _provenance(folder: RunFolder, steps: int, *, averaged: bool) -> dict[str, Any]:
    facts = folder.facts
    code = facts["sessions"][-1]
    return {
        "recipe": facts["recipe"],
        "config_hash": facts["config_hash"],
        "steps": steps,
        "student_updates": steps // folder.config.student.every,
        "averaged": f"decay {folder.config.student.ema:g}" if averaged else "no",
        "teacher": public_name(folder.config.backbone.model),
        "teacher_revision": folder.config.backbone.revision,
        **_merged_loras(folder.config.backbone),
        **_start(folder.config.student.init),
        "fewstep": code["fewstep"],
        "git": code["git"],
    }
