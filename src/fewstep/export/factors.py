"""A student as low-rank factors in one file, for diffusers or for ComfyUI, to be put on its teacher at strength 1."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.facts import ModelFacts, write_facts
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.registry import comfyui_kinds
from fewstep.errors import ConfigError
from fewstep.export.formats import WRITTEN, require_range
from fewstep.export.workflow import sampler_name, workflow
from fewstep.files import write_json

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers looks for in a folder."""
_WORKFLOW_FILE = "workflow.json"


def require_plain_teacher(config: BackboneConfig, *, run: str) -> None:
    """Raise ConfigError for a teacher that is not what others would put the factors on."""
    if config.lora or config.components:
        reason = "has LoRAs merged into it (backbone.lora)" if config.lora else "is one file of weights"
        raise ConfigError(
            f"The teacher of {run} {reason}, which is not what others would put the factors on; "
            "export the whole student, with --format pipeline."
        )


def require_loader(network: nn.Module, adapter: ModelAdapter) -> None:
    """Raise ConfigError for a family on whose networks diffusers puts no factors."""
    if getattr(network, "load_lora_adapter", None) is None or not adapter.merges_lora:
        raise ConfigError(
            f"diffusers has no loader of low-rank factors for the {type(network).__name__} of {adapter.config.model}; "
            "export the whole student, with --format pipeline."
        )


def factor_layers(network: nn.Module, targets: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """The weights that may take factors, by layer: of linear layers and of convolutions over pictures.

    Args:
        targets: Ends of names; None is every layer.
    """
    return {
        name: module.weight
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and (targets is None or is_target(name, targets))
    }


def is_target(layer: str, targets: tuple[str, ...]) -> bool:
    """Whether a layer's name ends with one of these."""
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def folded(factors: Mapping[str, Tensor], scaling: float) -> dict[str, Tensor]:
    """Factors that need no scaling beside them: it is in B, so that strength 1 is what was trained."""
    return {name: value * scaling if ".lora_B." in name else value for name, value in factors.items()}


def comfyui_targets(adapter: ModelAdapter) -> tuple[str, ...]:
    """Ends of the names of the layers that a file for ComfyUI holds."""
    return adapter.lora_targets if adapter.comfyui is None else (*adapter.lora_targets, *adapter.comfyui.further)


def require_comfyui(adapter: ModelAdapter, factors: Mapping[str, Tensor] | None = None) -> ComfyUIFamily:
    """How ComfyUI knows the family.

    Raises:
        ConfigError: Naming the families that it serves, or a layer that has no name there.
    """
    if adapter.comfyui is None:
        raise ConfigError(
            f"The backbone {adapter.kind} has no LoRA layout of ComfyUI here; {', '.join(comfyui_kinds())} have. "
            "Export it with --format lora or --format pipeline."
        )
    for name in factors or ():
        layer = name.partition(".lora_")[0]
        if not is_target(layer, comfyui_targets(adapter)):
            raise ConfigError(
                f"The run trained {layer}, for which the ComfyUI layout of {adapter.kind} has no name; export it with "
                "--format lora."
            )
    return adapter.comfyui


def write_for_diffusers(
    adapter: ModelAdapter, factors: Mapping[str, Tensor], facts: ModelFacts, file: Path, *, dtype: str
) -> None:
    """Write factors under the names that the family's pipeline reads, the student's scheduler and its facts."""
    named = {f"{adapter.network_component}.{name}": value for name, value in factors.items()}
    _save(file, named, facts, [*(facts.sigmas or ()), 0.0], dtype=dtype)
    _write_beside(adapter, facts, file.parent)


def write_for_comfyui(
    adapter: ModelAdapter, factors: Mapping[str, Tensor], facts: ModelFacts, file: Path, *, prompt: str, dtype: str
) -> None:
    """Write factors under the names that ComfyUI reads, and the graph that draws with them.

    Raises:
        ConfigError: A layer has no name there.
    """
    known = require_comfyui(adapter, factors)
    _save(file, known.named(factors), facts, known.sigmas(facts.sigmas or ()), dtype=dtype)
    write_json(file.parent / _WORKFLOW_FILE, workflow(adapter, known, facts, lora=file.name, prompt=prompt))
    _write_beside(adapter, facts, file.parent)


def _save(path: Path, tensors: Mapping[str, Tensor], facts: ModelFacts, sigmas: list[float], *, dtype: str) -> None:
    """Write factors with the settings that draw with them: the grid as the reader of the file counts it."""
    require_range(tensors.items(), dtype)
    written = {name: value.to(WRITTEN[dtype]).contiguous() for name, value in tensors.items()}
    settings = {
        "format": "pt",
        "sampler": sampler_name(facts),
        "steps": str(len(facts.sigmas or ())),
        "sigmas": json.dumps(sigmas),
        "guidance_scale": f"{facts.guidance_scale:g}",
        "strength": "1",
        "teacher": str(facts.provenance.get("teacher", "")),
        "distilled_with": f"fewstep {facts.provenance.get('fewstep', '')}".strip(),
    }
    save_file(written, path, metadata=settings)


def _write_beside(adapter: ModelAdapter, facts: ModelFacts, folder: Path) -> None:
    adapter.sampling_scheduler(facts.sigmas or (), step=facts.step).save_pretrained(folder / "scheduler")
    write_facts(facts, folder)
