"""Tiny real models to evaluate: a teacher, a student exported from it, and the embedded teacher's own student."""

from pathlib import Path

import torch
from torch import nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.export import export_student
from tests.backbones import tiny

LEVELS = (1.0, 0.75, 0.5, 0.25)


def moved(network: nn.Module, *, by: float) -> nn.Module:
    """A student that is not its teacher."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return network


def write_teacher(folder: Path) -> Path:
    """A tiny SD3 pipeline without facts of ours: a stranger's folder."""
    tiny.save(tiny.sd3_pipeline(t5=False), folder)
    return folder


def write_student(teacher: Path, folder: Path, *, named_teacher: str | None = None) -> Path:
    """A four-step student of 16 x 16 pixels that says, or does not say, who its teacher is."""
    config = SD3Adapter.config_class(kind="sd3", model=str(teacher), height=16, width=16, max_sequence_length=1)
    adapter = create_model_adapter(teacher, config)
    provenance = {} if named_teacher is None else {"teacher": named_teacher}
    export_student(adapter, moved(adapter.load_network(), by=0.02), folder, levels=LEVELS, provenance=provenance)
    return folder


def write_embedded_student(folder: Path) -> Path:
    """A four-step student of the embedded teacher, a little away from it."""
    adapter = create_model_adapter("fewstep:digits")
    network = moved(adapter.load_network(), by=0.002)
    export_student(adapter, network, folder, levels=LEVELS, provenance={"teacher": "fewstep:digits"})
    return folder
