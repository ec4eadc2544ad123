"""Numbers that are not finite are found where they are made, and the part that made them is named.

One look per batch, after the work: no step of a sampler or a training waits for it.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.conditioning import Conditioning
from fewstep.errors import CheckpointError, shown
from fewstep.tensors import opened_tensors


def require_finite(tensors: Iterable[Tensor], *, model: str, parts: Mapping[str, nn.Module | None]) -> None:
    """Raise unless all numbers are finite; one host read.

    Args:
        tensors: What was computed.
        model: Its name, for the message.
        parts: What computed it, by names for people; a part that is not at hand is None.

    Raises:
        CheckpointError: Naming the part, and a weight of it when one is not finite itself.
    """
    looks = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    if not looks or bool(torch.stack(looks).all()):
        return
    for part, module in parts.items():
        weight = _broken_weight(module) if module is not None else None
        if weight is not None:
            raise CheckpointError(
                f"The {part} of {model} gives numbers that are not finite: its weight {weight} holds such ones. "
                "Get the model again."
            )
    raise CheckpointError(
        f"The {' or the '.join(parts)} of {model} gives numbers that are not finite. Get the model again, or compute "
        "in fp32 if it was asked in half precision."
    )


def _broken_weight(module: nn.Module) -> str | None:
    """The name of the first weight that holds NaN or infinity."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    floating = ((name, tensor) for name, tensor in tensors if tensor.is_floating_point() and not tensor.is_meta)
    return next((name for name, tensor in floating if not bool(tensor.isfinite().all())), None)


def require_finite_encoding(adapter: ModelAdapter, pipeline: Any, cond: Conditioning) -> Conditioning:
    """Return what the text encoders gave, if all of it is finite."""
    encoders = adapter.get_text_encoders(pipeline)
    numbers = [""] if len(encoders) == 1 else [f" {number}" for number in range(1, len(encoders) + 1)]
    parts = {f"text encoder{number}": encoder for number, encoder in zip(numbers, encoders, strict=True)}
    require_finite(cond.tensors.values(), model=adapter.config.model, parts=parts or {"text encoder": None})
    return cond


def require_clock(adapter: ModelAdapter) -> None:
    """Raise CheckpointError unless the scheduler turns rising noise levels into rising ones in (0, 1]."""
    levels = torch.linspace(0.125, 1.0, 8, dtype=torch.float64)
    # one by one, and as a grid
    for sigmas in (adapter.to_sigma(levels).double(), adapter.sigmas(levels.flip(0)).double().flip(0)):
        if bool((sigmas.diff() > 0).all() and sigmas[0] > 0 and sigmas[-1] <= 1 + 1e-6):
            continue
        settings = {key: value for key, value in adapter.components.get("scheduler", {}).items() if _is_number(value)}
        raise CheckpointError(
            f"The scheduler of {adapter.config.model} turns the noise levels 1/8 ... 1 into "
            f"{shown([round(value, 4) for value in sigmas.tolist()], 120)}, which do not rise from 0 to 1; its numbers "
            f"are {shown(settings, 300)}. Correct its scheduler_config.json, or get the model again."
        )


def require_floating_weights(module: nn.Module, files: Iterable[Path], place: str) -> None:
    """Raise CheckpointError when whole numbers were read as a weight: the libraries turn them into floats silently.

    Args:
        module: As it was loaded.
        files: What it was loaded from; beside weights, such as positions, they may hold whole numbers.
        place: The module, for the message.
    """
    weights = {name for name, weight in module.named_parameters() if weight.is_floating_point()}
    for path in files:
        for name, stored in sorted(_whole_numbers(path).items()):
            # transformers adds a prefix to some names, and takes it from others
            if any(
                f".{one}".endswith(f".{other}") for weight in weights for one, other in permutations((name, weight))
            ):
                raise CheckpointError(
                    f"The weight {name} of {place} is stored as {stored} in {path.name}, not as floating-point "
                    "numbers. Get the model again."
                )


def _whole_numbers(path: Path) -> dict[str, str]:
    """The tensors in a file of weights that are no floating-point numbers, with what they are; no number is read."""
    if path.suffix == ".safetensors":
        with opened_tensors(path) as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        return {name: stored for name, stored in types.items() if not stored.startswith(("F", "BF"))}
    stored = torch.load(path, map_location="meta", weights_only=True)
    tensors = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
    return {name: str(value.dtype) for name, value in tensors.items() if not value.is_floating_point()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
