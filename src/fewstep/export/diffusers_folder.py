"""Write a student as a diffusers folder that stock ``DiffusionPipeline.from_pretrained`` loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.backbones.configurations import CURE, without_infinities
from fewstep.backbones.facts import ModelFacts, write_facts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.source import EMBEDDED_TEACHER
from fewstep.core.points import Step
from fewstep.errors import ConfigError
from fewstep.export.formats import WRITTEN, require_dtype, require_range
from fewstep.files import explain_write_errors, load_json, whole_folder, write_json

# where the checkpoint was is no property of the student, and permission to train on it is no default for others
_NOT_KEPT = {"model", "revision", "allow_distilled", "lora", "components", "sizes"}


@dataclass(frozen=True)
class Exported:
    """A written student.

    Attributes:
        folder: The diffusers folder.
        stock_call: Python code that draws with it, for the working directory in which it was exported.
    """

    folder: Path
    stock_call: str

    def __str__(self) -> str:
        return f"The student is in {self.folder}. Draw with it in plain diffusers:\n\n{self.stock_call}"


def export_student(
    adapter: ModelAdapter,
    network: nn.Module,
    folder: str | Path,
    *,
    levels: Sequence[float],
    step: Step = "euler",
    dtype: str = "fp32",
    provenance: Mapping[str, Any] | None = None,
) -> Exported:
    """Write ``network`` as a pipeline with copies of its checkpoint's other components, whole or not at all.

    Args:
        adapter: The teacher's adapter.
        network: The student, holding the weights to export; cast in place to ``dtype``.
        folder: Where the pipeline goes; it may exist if it is empty.
        levels: The student's grid before the backbone's time shift.
        step: The student's step from one level to the next.
        dtype: ``fp32``, ``bf16`` or ``fp16``, of the written weights.
        provenance: Plain data for the model card and ``fewstep.json``.

    Raises:
        ConfigError: The folder is not empty or cannot be written, ``dtype`` is unknown or too narrow for a weight, or
            no stock scheduler has this grid and step.
    """
    target = Path(folder)
    require_free(target)
    require_dtype(dtype)
    require_range(network.named_parameters(), dtype)
    facts = student_facts(adapter, levels, provenance or {}, step=step)
    with explain_write_errors(target), whole_folder(target, doing="exporting") as unfinished:
        # torch's own cast: the one of diffusers warns about modules to keep in float32 even when there are none
        adapter.save_pipeline(nn.Module.to(network, WRITTEN[dtype]), unfinished, facts.sigmas or (), step=step)
        _forget_places(unfinished)
        write_facts(facts, unfinished)
        card = _card(adapter, target.resolve().name, facts, dtype=dtype)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    return Exported(target, _call(adapter, target.as_posix(), facts, dtype=dtype))


def require_free(folder: Path) -> None:
    """Raise ConfigError when ``folder`` is a file or holds anything."""
    with explain_write_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"The output {folder} exists and is not an empty folder; choose another --output.")


def _forget_places(folder: Path) -> None:
    """Drop the paths at which this machine kept the components: diffusers notes where each was loaded from."""
    for path in folder.glob("*/config.json"):
        config = load_json(path, dict[str, Any], cure=CURE)
        if Path(str(config.get("_name_or_path", ""))).is_absolute():
            del config["_name_or_path"]
            write_json(path, config)


def student_facts(
    adapter: ModelAdapter, levels: Sequence[float], provenance: Mapping[str, Any], *, step: Step
) -> ModelFacts:
    """What ``fewstep.json`` says of an exported student."""
    sigmas: Tensor = adapter.to_sigma(torch.tensor(list(levels), dtype=torch.float32))
    return ModelFacts(
        role="student",
        backbone=adapter.config.model_dump(mode="json", exclude=_NOT_KEPT),
        levels=tuple(levels),
        sigmas=tuple(plain_floats(sigmas)),
        steps=len(levels),
        step=step,
        guidance_scale=adapter.guidance.off,
        scheduler=without_infinities(adapter.components["scheduler"]),
        provenance=dict(provenance),
    )


def _call(adapter: ModelAdapter, folder: str, facts: ModelFacts, *, dtype: str) -> str:
    digits = adapter.config.model == EMBEDDED_TEACHER
    prompt = "a red handwritten three" if digits else "a lighthouse on a cliff at dusk"
    return _stock_call(adapter, folder, facts, prompt=prompt, dtype=dtype)


def _card(adapter: ModelAdapter, name: str, facts: ModelFacts, *, dtype: str) -> str:
    """The text of README.md."""
    call = _call(adapter, name, facts, dtype=dtype)
    provenance, steps = facts.provenance, len(facts.sigmas or ())
    grid = (
        "scheduler takes the sigmas as they are, and a call without them draws poorer pictures."
        if adapter.call_kwargs(facts.sigmas or ()).keys() & {"sigmas", "timesteps"}
        else f"scheduler holds that grid, and a call with another number of steps than {steps} draws something poorer."
    )
    file = "picture.png" if adapter.frame_rate is None else "video.gif"
    teacher = provenance.get("teacher")
    rows = "".join(f"| {key.replace('_', ' ')} | {_cell(value)} |\n" for key, value in provenance.items())
    return (
        f"# {name}\n\n"
        f"A {steps}-step student, distilled with [fewstep](https://pypi.org/project/fewstep) from "
        f"{f'`{teacher}`' if teacher else 'its teacher'}. "
        "The teacher's licence applies to these weights.\n\n"
        "## Draw with plain diffusers\n\n"
        "Run this beside the folder. The grid of noise levels and the guidance scale belong to the student: its "
        f"{grid}\n\n"
        f"```python\n{call}```\n\n"
        f'Or with fewstep: `fewstep sample {name} --prompt "..." --steps {steps} --output {file}`\n\n'
        "## Where it comes from\n\n"
        f"| | |\n|---|---|\n{rows}| weights | {dtype} |\n"
    )


def plain_floats(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The shortest decimal numbers that are these float32 values."""
    return [float(str(np.float32(sigma))) for sigma in torch.as_tensor(sigmas).tolist()]


def _stock_call(adapter: ModelAdapter, folder: str, facts: ModelFacts, *, prompt: str, dtype: str) -> str:
    """Python code that draws once with plain diffusers, exactly as our sampler does but for noise drawn on the way.

    Args:
        folder: Where the code looks for the exported student.
        facts: What ``fewstep.json`` says of it.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
    """
    # stated also for fp32: the text encoders may be stored in another precision, in which they would be loaded
    load = {"dtype": WRITTEN[dtype], **adapter.load_kwargs()}
    arguments = "".join(f", {name}={value!r}" for name, value in load.items())
    call = "".join(f"    {name}={value!r},\n" for name, value in adapter.call_kwargs(facts.sigmas or ()).items())
    return (
        "import torch\n"
        f"from diffusers import DiffusionPipeline\n{imports(adapter)}\n"
        f'pipeline = DiffusionPipeline.from_pretrained("{folder}"{arguments})\n'
        f"call = dict(\n{call})\n"
        f"{drawn_and_saved(adapter, prompt, facts.step)}"
    )


def imports(adapter: ModelAdapter) -> str:
    """What the code of :func:`drawn_and_saved` needs besides torch and the pipeline."""
    return "" if adapter.frame_rate is None else "from diffusers.utils import export_to_gif\n"


def drawn_and_saved(adapter: ModelAdapter, prompt: str, step: Step) -> str:
    """Python code that calls ``pipeline`` with ``call`` and writes what it draws: one picture, or one video."""
    # not every pipeline hands its generator to a scheduler that draws noise
    seeded = "torch.manual_seed(0)\n" if step == "renoise" else ""
    asked = f'pipeline(prompt="{prompt}", generator=torch.Generator().manual_seed(0), **call'
    if adapter.frame_rate is None:
        return f'{seeded}image = {asked}).images[0]\nimage.save("picture.png")\n'
    saved = f'export_to_gif(frames, "video.gif", fps={adapter.frame_rate})'
    return f'{seeded}frames = {asked}, output_type="pil").frames[0]\n{saved}\n'


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "-" if value is None else str(value)
