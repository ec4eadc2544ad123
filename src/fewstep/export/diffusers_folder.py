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
from fewstep.core.points import Step
from fewstep.errors import ConfigError
from fewstep.export.card import card
from fewstep.export.comparison import Difference
from fewstep.export.formats import WRITTEN, require_dtype, require_range
from fewstep.export.low_rank import Extraction
from fewstep.export.stock_code import pipeline_code
from fewstep.files import explain_write_errors, load_json, whole_folder, write_json, write_text

# where the checkpoint was is no property of the student, and permission to train on it is no default for others
_NOT_KEPT = {"model", "revision", "allow_distilled", "lora", "components", "sizes"}


@dataclass(frozen=True)
class Exported:
    """A written student.

    Attributes:
        folder: What was written.
        stock_call: Python code that draws with it, for the working directory in which it was exported.
        difference: Between what the run's student draws and what the written files draw, where they were compared.
        extraction: What low-rank factors leave out of a run of all weights.
    """

    folder: Path
    stock_call: str
    difference: Difference | None = None
    extraction: Extraction | None = None

    def __str__(self) -> str:
        lost = "" if self.extraction is None else f"{self.extraction}\n"
        same = "" if self.difference is None else f"Read again from the written files and drawn: {self.difference}.\n"
        return f"{lost}{same}The student is in {self.folder}. Draw with it in plain diffusers:\n\n{self.stock_call}"


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
        write_pipeline(adapter, network, unfinished, facts, dtype=dtype)
        name = target.resolve().name
        text = card(adapter, name, facts, code=pipeline_code(adapter, name, facts, dtype=dtype), dtype=dtype)
        write_text(unfinished / "README.md", text)
    return Exported(target, pipeline_code(adapter, target.as_posix(), facts, dtype=dtype))


def write_pipeline(adapter: ModelAdapter, network: nn.Module, folder: Path, facts: ModelFacts, *, dtype: str) -> None:
    """Fill an empty folder with a student's pipeline and its facts; ``network`` is cast in place."""
    # torch's own cast: the one of diffusers warns about modules to keep in float32 even when there are none
    adapter.save_pipeline(nn.Module.to(network, WRITTEN[dtype]), folder, facts.sigmas or (), step=facts.step)
    _forget_places(folder)
    write_facts(facts, folder)


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


def plain_floats(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The shortest decimal numbers that are these float32 values."""
    return [float(str(np.float32(sigma))) for sigma in torch.as_tensor(sigmas).tolist()]
