"""Make student, teacher and fake score from one checkpoint."""

import copy

import torch
from torch import nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.roles.role import Role, Roles


def build_roles(
    adapter: ModelAdapter, *, device: torch.device, compute: torch.dtype, gradient_checkpointing: bool
) -> Roles:
    """Load the checkpoint once and give each role its own copy, all in eval mode (dropout off).

    Student and fake score keep float32 master weights whatever the compute precision: in bfloat16 an update of
    size lr rounds to nothing. The teacher is never updated and is held in the compute precision.
    """
    network = adapter.load_network(dtype=torch.float32).eval()
    student, fake_score = network, copy.deepcopy(network)
    teacher = copy.deepcopy(network).requires_grad_(False)
    if compute != torch.float32:
        teacher = teacher.to(compute)
    for trained in (student, fake_score):
        trained.requires_grad_(True)
        if gradient_checkpointing:
            _enable_checkpointing(trained)
    adapter.compute_dtype = compute
    return Roles(
        student=Role(student.to(device), adapter, compute),
        teacher=Role(teacher.to(device), adapter, compute),
        fake_score=Role(fake_score.to(device), adapter, compute),
    )


def _enable_checkpointing(network: nn.Module) -> None:
    enable = network.enable_gradient_checkpointing  # every diffusers network has it
    assert callable(enable)
    enable()
