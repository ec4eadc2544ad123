"""The README.md of an exported student: what it is, where it comes from, and the stock call that draws with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.devices import DTYPES


def plain_floats(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The shortest decimal numbers that are these float32 values."""
    return [float(str(np.float32(sigma))) for sigma in torch.as_tensor(sigmas).tolist()]


def stock_call(adapter: ModelAdapter, folder: str, sigmas: Sequence[float], *, prompt: str, dtype: str) -> str:
    """Python code that draws one picture with plain diffusers, exactly as our sampler does.

    Args:
        folder: Where the code looks for the exported student.
        dtype: ``fp32`` or ``bf16``.
    """
    # stated also for fp32: the text encoders may be stored in another precision, in which they would be loaded
    load = {"dtype": DTYPES[dtype], **adapter.load_kwargs()}
    arguments = "".join(f", {name}={value!r}" for name, value in load.items())
    call = "".join(f"    {name}={value!r},\n" for name, value in adapter.call_kwargs(sigmas).items())
    return (
        "import torch\n"
        "from diffusers import DiffusionPipeline\n\n"
        f'pipeline = DiffusionPipeline.from_pretrained("{folder}"{arguments})\n'
        f"call = dict(\n{call})\n"
        f'image = pipeline("{prompt}", generator=torch.Generator().manual_seed(0), **call).images[0]\n'
        'image.save("picture.png")\n'
    )


def model_card(call: str, *, name: str, steps: int, provenance: Mapping[str, Any], dtype: str) -> str:
    """The text of README.md."""
    teacher = provenance.get("teacher")
    rows = "".join(f"| {key.replace('_', ' ')} | {_cell(value)} |\n" for key, value in provenance.items())
    return (
        f"# {name}\n\n"
        f"A {steps}-step student, distilled with [fewstep](https://pypi.org/project/fewstep) from "
        f"{f'`{teacher}`' if teacher else 'its teacher'}. "
        "The teacher's licence applies to these weights.\n\n"
        "## Draw with plain diffusers\n\n"
        "Run this beside the folder. The grid of noise levels and the guidance scale belong to the student: its "
        "scheduler takes the sigmas as they are, and a call without them draws poorer pictures.\n\n"
        f"```python\n{call}```\n\n"
        f'Or with fewstep: `fewstep sample {name} --prompt "..." --steps {steps} --output picture.png`\n\n'
        "## Where it comes from\n\n"
        f"| | |\n|---|---|\n{rows}| weights | {dtype} |\n"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "-" if value is None else str(value)
