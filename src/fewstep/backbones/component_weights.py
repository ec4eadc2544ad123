"""Load a checkpoint's components with the weights that are there, whatever precision and layout they are kept in."""

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewstep.backbones.component_files import Part, attached_lora, fetch_parts, list_files
from fewstep.backbones.finite import require_floating_weights
from fewstep.backbones.source import loading, open_checkpoint
from fewstep.backbones.using import quiet_imports
from fewstep.errors import CheckpointError, ConfigError, shown

_LIBRARIES = ("diffusers", "transformers")


def load_component(model: str, revision: str | None, component: str, class_name: str, dtype: torch.dtype) -> nn.Module:
    """Load one diffusers network with every one of its weights, in eval mode.

    Raises:
        CheckpointError: A weights file is missing, damaged, or does not hold exactly the network's parameters.
    """
    part = ("diffusers", class_name)
    place = f"the {component} of {model}"
    listing = list_files(model, revision)
    folder, files = fetch_parts(listing, revision, {component: part}), listing.weights(component, part)
    assert files is not None
    network_class = part_class(part, place=place)
    with loading(model, revision, place):
        network, info = network_class.from_pretrained(
            folder, subfolder=component, dtype=dtype, output_loading_info=True, **_kept_as(files)
        )
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    if wrong:
        raise CheckpointError(
            attached_lora(f"T{place[1:]}", info["unexpected_keys"])
            or f"{len(wrong)} weights of {place} are missing, unknown or of another shape, first {wrong[0]}. "
            "Its weights and its config.json do not belong together; get the model again."
        )
    require_floating_weights(network, [folder / component / name for name in files.tensors], place)
    loaded: nn.Module = network.eval()
    return loaded


def load_start(
    model: str,
    revision: str | None,
    component: str,
    class_name: str,
    *,
    like: nn.Module,
    teacher: str,
    components: Mapping[str, Mapping[str, Any]],
) -> nn.Module:
    """Load the network of another model than the teacher, in float32, for a student to start from.

    Args:
        like: The teacher's network, with or without weights.
        teacher: The teacher's name.
        components: The configurations of its parts.

    Raises:
        ConfigError: The network is of another class or architecture, or answers another question.
        CheckpointError: A weights file is missing or damaged.
    """
    checkpoint = open_checkpoint(model, revision)
    if component not in checkpoint.components:
        raise ConfigError(f"student.init.model is {model}, which has no {component} to start from.")
    found = checkpoint.components[component].get("_class_name")
    if found != class_name:
        raise ConfigError(
            f"student.init.model is {model}, whose {component} is a {shown(found, quoted=False)}, but the teacher's is "
            f"a {class_name}. Start from a model made from the teacher's."
        )
    _require_same_prediction(model, checkpoint.adapter_components, components)
    network = load_component(model, revision, component, class_name, torch.float32)
    ours, theirs = ({name: value.shape for name, value in net.named_parameters()} for net in (like, network))
    differing = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
    if differing:
        raise ConfigError(
            f"student.init.model is {model}, of another architecture than {teacher}: {len(differing)} weights differ "
            f"in name or shape, first {differing[0]}. Start from a model made from the teacher's."
        )
    return network


def _require_same_prediction(model: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ConfigError when another model's network answers another question than the teacher's."""
    asked, stated = (parts.get("scheduler", {}).get("prediction_type") for parts in (ours, theirs))
    if None not in (asked, stated) and asked != stated:
        raise ConfigError(
            f"student.init.model is {model}, whose network predicts {stated}, but the teacher's predicts {asked}; "
            "start from a model that was made from the teacher's."
        )


def fetch_pipeline(
    model: str, revision: str | None, parts: Mapping[str, Part], dtype: torch.dtype, *, given: Collection[str]
) -> tuple[Path, dict[str, Any]]:
    """A local folder that a pipeline loads from, and those of its components that have weights.

    A pipeline loads one variant of everything, or none, and lets random weights stand in for missing ones; here each
    component has the weights that it has, all of them.

    Args:
        parts: Every component that the index names.
        given: Those that are loaded elsewhere, or left out.
    """
    wanted = {name: part for name, part in parts.items() if name not in given}
    listing = list_files(model, revision)
    folder = fetch_parts(listing, revision, wanted)
    loaded = {}
    for name, part in wanted.items():
        files = listing.weights(name, part)
        if files is not None and (files.variant is not None or part[0] in _LIBRARIES):
            place = f"the {name} of {model}"
            with loading(model, revision, place):
                loaded[name], info = part_class(part, place=place).from_pretrained(
                    folder, subfolder=name, dtype=dtype, output_loading_info=True, **_kept_as(files)
                )
            _require_every_weight(info, place=place)
            require_floating_weights(loaded[name], [folder / name / file for file in files.tensors], place)
    return folder, loaded


def _require_every_weight(info: Mapping[str, Any], *, place: str) -> None:
    # the head that writes text is not asked for embeddings, and published encoders may come without it
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("lm_head."))
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights of {place} are missing, first {shown(missing[0], quoted=False)}. Its weights and "
            "its config.json do not belong together; get the model again."
        )


def part_class(part: Part, *, place: str) -> Any:
    """The class of a component; an index may name any, but only those of two libraries are looked up."""
    library, name = part
    if library in _LIBRARIES and name.isidentifier():
        with quiet_imports():
            found = getattr(import_module(library), name, None)
        if isinstance(found, type) and hasattr(found, "from_pretrained"):
            return found
    raise CheckpointError(
        f"{place[0].upper()}{place[1:]} is a {shown(name, quoted=False)} of {shown(library, quoted=False)}, which the "
        f"installed {' and '.join(_LIBRARIES)} do not have. Install newer ones, or use another copy of the model."
    )


def _kept_as(files: Any) -> dict[str, Any]:
    return {"variant": files.variant, "use_safetensors": files.safetensors}
