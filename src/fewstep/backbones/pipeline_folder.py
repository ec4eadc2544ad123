"""Write a diffusers folder: one network and scheduler of ours, every other component copied file by file.

Nothing but the network is loaded, so a text encoder of many gigabytes costs a copy and no memory.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewstep.backbones.component_files import copy_part, fetch_parts, list_files
from fewstep.backbones.configurations import pipeline_parts, without_infinities
from fewstep.backbones.source import MODEL_INDEX, quiet_loading
from fewstep.files import load_json, write_json


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
    listing = list_files(model, revision)
    copied = {name: part for name, part in pipeline_parts(model_index).items() if name not in replaced}
    source = fetch_parts(listing, revision, copied)
    for name, part in copied.items():
        copy_part(source / name, folder / name, listing, part)
    with quiet_loading(model):
        for name, part in {network_component: network, **changed}.items():
            part.save_pretrained(folder / name, safe_serialization=True)
    _write_scheduler(scheduler, folder / "scheduler")
    written = {network_component: network, "scheduler": scheduler}
    # the network's class too: older checkpoints name one that has since been split
    index = {**model_index, **{name: ["diffusers", type(part).__name__] for name, part in written.items()}}
    index.pop("_name_or_path", None)
    write_json(folder / MODEL_INDEX, dict(sorted(index.items())))


def _write_scheduler(scheduler: Any, folder: Path) -> None:
    """Save a scheduler as JSON that any parser reads: diffusers writes a limit of minus infinity as such."""
    scheduler.save_pretrained(folder)
    file = folder / "scheduler_config.json"
    write_json(file, without_infinities(load_json(file, dict[str, Any], cure="Export again")))
