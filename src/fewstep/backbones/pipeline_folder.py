"""Write a diffusers folder: one network and scheduler of ours, every other component copied file by file.

Nothing but the network is loaded, so a text encoder of many gigabytes costs a copy and no memory.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewstep.backbones.configurations import pipeline_parts, without_infinities
from fewstep.backbones.source import MODEL_INDEX, fetch_folder, quiet_loading
from fewstep.errors import CheckpointError
from fewstep.files import load_json, write_json

DUPLICATE_WEIGHTS = ("*.fp16.*", "*.bf16.*", "*.non_ema.*", "*.bin", "*.msgpack", "*.onnx*", "*.ckpt", "*.h5")
"""Further copies of weights that a checkpoint may hold beside its safetensors."""


def write_pipeline_folder(
    folder: Path,
    network: nn.Module,
    scheduler: Any,
    *,
    model: str,
    revision: str | None,
    model_index: Mapping[str, Any],
    network_component: str,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write the pipeline of ``model`` into ``folder`` with another network and scheduler.

    Args:
        folder: An existing empty folder.
        network: A diffusers model; saved in its own dtype as safetensors.
        model_index: The checkpoint's ``model_index.json``.
        changed: Further components that are not those of ``model``, by name.
    """
    changed = changed or {}
    replaced = {network_component, "scheduler", *changed}
    skip = (*DUPLICATE_WEIGHTS, f"{network_component}/*.safetensors")
    copied = sorted(pipeline_parts(model_index).keys() - replaced)
    source = fetch_folder(model, revision, folders=copied, skip=skip)
    for name in copied:
        _copy_component(source / name, folder / name)
    with quiet_loading(model):
        for name, part in {network_component: network, **changed}.items():
            part.save_pretrained(folder / name, safe_serialization=True)
    _write_scheduler(scheduler, folder / "scheduler")
    written = {network_component: network, "scheduler": scheduler}
    # the network's class too: older checkpoints name one that has since been split
    index = {**model_index, **{name: ["diffusers", type(part).__name__] for name, part in written.items()}}
    index.pop("_name_or_path", None)
    (folder / MODEL_INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_scheduler(scheduler: Any, folder: Path) -> None:
    """Save a scheduler as JSON that any parser reads: diffusers writes a limit of minus infinity as such."""
    scheduler.save_pretrained(folder)
    file = folder / "scheduler_config.json"
    write_json(file, without_infinities(load_json(file, dict[str, Any], cure="Export again")))


def _copy_component(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise CheckpointError(
            f"{source.parent} has no folder {source.name}, which its {MODEL_INDEX} names; get the model again."
        )
    has_safetensors = any(source.glob("*.safetensors"))
    ignore = shutil.ignore_patterns(*DUPLICATE_WEIGHTS) if has_safetensors else None
    shutil.copytree(source, target, ignore=ignore)
