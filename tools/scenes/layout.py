"""What covers each cell of a picture, read off the hidden states of a half-deep block while the teacher is trained.

A network that has to say so learns what words look like, and where they may stand, from many more bits than the
velocity holds (after Yu et al. 2024, "Representation Alignment for Generation", where the target is a feature of
another network). The head is thrown away with the training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.embedded.scenes.detector import CELL, GRID
from fewstep.embedded.scenes.grammar import NOUNS
from tools.embedded_teacher.teacher import PromptEmbeds, TeacherNetworks
from tools.scenes.pictures import Drawn

CLASSES = 1 + len(NOUNS)
HEAD = "layout."


def cells_of(picture: Drawn) -> Tensor:
    """Name what covers the middle of each 4x4 cell: 0 for the ground, else the noun's number and one; ``(12, 12)``."""
    classes = torch.zeros(GRID, GRID, dtype=torch.uint8)
    middles = CELL * torch.arange(GRID) + CELL // 2
    for placed in picture.objects:
        rows = (placed.top <= middles) & (middles < placed.top + placed.height)
        columns = (placed.left <= middles) & (middles < placed.left + placed.width)
        classes[rows[:, None] & columns[None, :]] = 1 + NOUNS.index(placed.noun)
    return classes


class InTraining(TeacherNetworks):
    """The networks, and the head that reads the cells of each image token off a middle block."""

    def __init__(self, networks: TeacherNetworks, *, patch: int) -> None:
        super().__init__(networks.transformer, networks.text_encoder, networks.text_encoder_2)
        self.patch = patch
        width = self.transformer.inner_dim
        self.layout = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch * patch * CLASSES))
        blocks = self.transformer.transformer_blocks
        blocks[(len(blocks) - 1) // 2].register_forward_hook(self._keep)
        self._hidden: Tensor | None = None

    def _keep(self, block: nn.Module, given: Any, output: tuple[Tensor, Tensor]) -> None:
        self._hidden = output[1]

    def velocity_and_layout(self, x_sigma: Tensor, sigma: Tensor, cond: PromptEmbeds) -> tuple[Tensor, Tensor]:
        """Predict the velocity, and logits of what covers each cell ``(b, tokens, patch * patch, classes)``."""
        velocity = self.velocity(x_sigma, sigma, cond)
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        return velocity, self.layout(hidden).unflatten(-1, (self.patch * self.patch, CLASSES))


def layout_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits ``(b, tokens, patch * patch, classes)`` with cells ``(b, 12, 12)``."""
    patch = int(logits.shape[2] ** 0.5)
    side = cells.shape[1] // patch
    tokens = cells.view(-1, side, patch, side, patch).transpose(2, 3).reshape(len(cells), side * side, patch * patch)
    return functional.cross_entropy(logits.float().flatten(0, 2), tokens.flatten().long())
