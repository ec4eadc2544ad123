"""Write a student's low-rank factors as a file that diffusers puts on the teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fewstep.backbones.facts import ModelFacts, write_facts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.errors import ConfigError
from fewstep.export.diffusers_folder import Exported, drawn_and_saved, imports, require_free
from fewstep.export.formats import WRITTEN, require_dtype, require_range
from fewstep.files import explain_write_errors, whole_folder

_WEIGHTS = "pytorch_lora_weights.safetensors"


def export_factors(
    adapter: ModelAdapter,
    factors: Mapping[str, Tensor],
    folder: str | Path,
    *,
    scaling: float,
    facts: ModelFacts,
    dtype: str = "fp32",
) -> Exported:
    """Write factors, the student's scheduler and the stock call, whole or not at all.

    The scaling goes into B, so that the file needs no alpha beside it.

    Args:
        adapter: The teacher's adapter.
        factors: ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``.
        folder: Where they go; it may exist if it is empty.
        scaling: The factor on B A.
        facts: What ``fewstep.json`` says of the student.
        dtype: ``fp32``, ``bf16`` or ``fp16``, of the written factors.

    Raises:
        ConfigError: The folder is not empty or cannot be written, or ``dtype`` is unknown or too narrow.
    """
    target = Path(folder)
    require_free(target)
    require_dtype(dtype)
    folded = {name: value * scaling if ".lora_B." in name else value for name, value in factors.items()}
    require_range(folded.items(), dtype)
    stored = {name: value.to(WRITTEN[dtype]).contiguous() for name, value in folded.items()}
    with explain_write_errors(target), whole_folder(target, doing="exporting") as unfinished:
        save_file(stored, unfinished / _WEIGHTS, metadata={"format": "pt"})
        adapter.sampling_scheduler(facts.sigmas or (), step=facts.step).save_pretrained(unfinished / "scheduler")
        write_facts(facts, unfinished)
        call = _call(adapter, target.resolve().name, facts, dtype=dtype)
        (unfinished / "README.md").write_text(_card(target.resolve().name, facts, call), encoding="utf-8")
    return Exported(target, _call(adapter, target.as_posix(), facts, dtype=dtype))


def require_loader(network: Any, model: str) -> None:
    """Raise ConfigError for a network on which diffusers puts no factors."""
    if getattr(network, "load_lora_adapter", None) is None:
        raise ConfigError(
            f"diffusers has no loader of low-rank factors for the {type(network).__name__} of {model}; "
            "export the merged student, without --factors."
        )


def _call(adapter: ModelAdapter, folder: str, facts: ModelFacts, *, dtype: str) -> str:
    """Python code that draws one picture with plain diffusers, the teacher and these factors."""
    load = "".join(f", {key}={value!r}" for key, value in {"dtype": WRITTEN[dtype], **adapter.load_kwargs()}.items())
    call = "".join(f"    {key}={value!r},\n" for key, value in adapter.call_kwargs(facts.sigmas or ()).items())
    scheduler = type(adapter.sampling_scheduler(facts.sigmas or (), step=facts.step)).__name__
    return (
        "import torch\n"
        f"from diffusers import DiffusionPipeline, {scheduler}\n{imports(adapter)}\n"
        f'pipeline = DiffusionPipeline.from_pretrained("{adapter.config.model}"{load})\n'
        f'pipeline.{adapter.network_component}.load_lora_adapter("{folder}", prefix=None, weight_name="{_WEIGHTS}")\n'
        f'pipeline.scheduler = {scheduler}.from_pretrained("{folder}", subfolder="scheduler")\n'
        f"call = dict(\n{call})\n"
        f"{drawn_and_saved(adapter, 'a lighthouse on a cliff at dusk', facts.step)}"
    )


def _card(name: str, facts: ModelFacts, call: str) -> str:
    rows = "".join(f"| {key.replace('_', ' ')} | {value} |\n" for key, value in facts.provenance.items())
    return (
        f"# {name}\n\n"
        f"Low-rank factors that turn their teacher into a {len(facts.sigmas or ())}-step student, distilled with "
        "[fewstep](https://pypi.org/project/fewstep). The teacher's licence applies.\n\n"
        "## Draw with plain diffusers\n\n"
        "Run this beside the folder. Noise levels, guidance scale and scheduler belong to the student.\n\n"
        f"```python\n{call}```\n\n"
        f"## Where they come from\n\n| | |\n|---|---|\n{rows}"
    )
