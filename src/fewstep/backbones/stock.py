"""Any diffusers pipeline as its own folder describes it: the class it names, its scheduler, LoRA factors on top."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fewstep.backbones.component_weights import fetch_pipeline
from fewstep.backbones.configurations import pipeline_parts
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.source import Checkpoint, loading
from fewstep.errors import ConfigError

_SIZES = frozenset({"height", "width", "num_frames"})


def pipeline_class(checkpoint: Checkpoint) -> type[Any]:
    """The diffusers class that a checkpoint names.

    Raises:
        ConfigError: The installed diffusers has no such class.
    """
    import diffusers

    found: type[Any] | None = getattr(diffusers, checkpoint.pipeline_class, None)
    if found is None:
        raise ConfigError(
            f"{checkpoint.model} is a {checkpoint.pipeline_class}, which the installed diffusers "
            f"{diffusers.__version__} does not have; install a newer one: pip install --upgrade diffusers."
        )
    return found


def loads_lora(adapter: ModelAdapter) -> bool:
    """Whether a family's pipeline reads low-rank factors by itself."""
    import diffusers

    return hasattr(getattr(diffusers, adapter.pipeline_class), "load_lora_weights")


def student_call(adapter: ModelAdapter, sigmas: Sequence[float], *, whole: bool) -> dict[str, Any]:
    """What a call has to be told of a student.

    Args:
        sigmas: The student's grid.
        whole: It is a folder of its own, whose model_index.json states some of it; else factors for the teacher.
    """
    held = adapter.index_holds(sigmas) if whole else frozenset[str]()
    return {name: value for name, value in adapter.call_kwargs(sigmas).items() if name not in held}


def bare_call(adapter: ModelAdapter, call: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline takes when it is told nothing, where a student needs something else; sizes are left out.

    Args:
        call: Of the student, as :func:`student_call` gives it.
    """
    import diffusers

    parameters = inspect.signature(getattr(diffusers, adapter.pipeline_class).__call__).parameters
    # a scale that needs a negative prompt beside it does nothing without one
    idle = {adapter.guidance.argument} if adapter.guidance.spelled_out else set()
    return {
        name: parameters[name].default
        for name, value in call.items()
        if name in parameters.keys() - _SIZES - idle and parameters[name].default != value
    }


def guidance_of(checkpoint: Checkpoint) -> Guidance:
    """How a pipeline counts guidance; as most do when no adapter serves it."""
    try:
        return create_model_adapter(checkpoint.model, as_teacher=False).guidance
    except ConfigError:
        return Guidance()


def load_stock(checkpoint: Checkpoint, *, dtype: torch.dtype, lora: str | None, lora_scale: float) -> Any:
    """Load a pipeline as its own card says, with LoRA factors on top when asked."""
    try:
        # an adapter knows what its family needs to load, such as components that are left out
        pipeline = create_model_adapter(checkpoint.model, as_teacher=False).load_pipeline(dtype=dtype)
    except ConfigError:
        found, parts = pipeline_class(checkpoint), pipeline_parts(checkpoint.components["model_index"])
        folder, components = fetch_pipeline(checkpoint.model, checkpoint.revision, parts, dtype, given=())
        with loading(checkpoint.model, checkpoint.revision, checkpoint.model):
            pipeline = found.from_pretrained(folder, dtype=dtype, **components)
    if lora is not None:
        _attach(pipeline, checkpoint, lora, lora_scale)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _attach(pipeline: Any, checkpoint: Checkpoint, lora: str, scale: float) -> None:
    if not hasattr(pipeline, "load_lora_weights"):
        raise ConfigError(f"{checkpoint.model} is a {checkpoint.pipeline_class}, whose pipeline loads no LoRA factors.")
    with loading(lora, None, f"the LoRA {lora}"):
        pipeline.load_lora_weights(lora, adapter_name="evaluated")
    pipeline.set_adapters(["evaluated"], [scale])
