"""The teacher's networks while they are trained: with two helping heads, which are thrown away afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tools.embedded_teacher.teacher import PromptEmbeds, TeacherNetworks
from tools.scenes.layout import CLASSES
from tools.scenes.reading import ASKED

_HEADS = ("layout.", "reading.")


class InTraining(TeacherNetworks):
    """The networks, a head that reads each image token's cells off a middle block, one that reads the prompt."""

    def __init__(self, networks: TeacherNetworks, *, patch: int) -> None:
        super().__init__(networks.transformer, networks.text_encoder, networks.text_encoder_2)
        self.patch = patch
        width = self.transformer.inner_dim
        self.layout = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch * patch * CLASSES))
        read = self.transformer.config.joint_attention_dim
        self.reading = nn.Sequential(nn.LayerNorm(read), nn.Linear(read, sum(ASKED.values())))
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


def without_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what only the training needs."""
    return {name: value.contiguous() for name, value in weights.items() if not name.startswith(_HEADS)}
