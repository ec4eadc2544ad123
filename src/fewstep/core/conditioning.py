"""What networks are told about prompts: tensors by name, and which role is told which."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the networks are told about each prompt: embeddings, pooled vectors, masks.

    Attributes:
        tensors: By the adapter's own names; the first axis of each is the prompt.
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.tensors.values())).shape[0]

    def rows(self, index: Tensor | slice) -> "Conditioning":
        """The prompts selected by ``index``."""
        return Conditioning({name: value[index] for name, value in self.tensors.items()})

    def expand(self, count: int) -> "Conditioning":
        """One prompt, repeated for a batch of ``count`` samples without copying."""
        return Conditioning({name: value.expand(count, *value.shape[1:]) for name, value in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Conditioning":
        return Conditioning({name: value.to(device, non_blocking=True) for name, value in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Several batches as one, in order."""
        return Conditioning({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})


@dataclass(frozen=True)
class PromptTensor:
    """One of the tensors that a prompt becomes, before there is a prompt.

    Attributes:
        shape: Without the axis of the prompts, padding included.
        dtype: None is that of the embeddings.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None

    def num_bytes(self, embeddings: torch.dtype) -> int:
        """What it takes when embeddings are of this dtype."""
        return math.prod(self.shape) * (self.dtype or embeddings).itemsize


@dataclass(frozen=True)
class PromptBatch:
    """What each role is told about one batch of prompts.

    Attributes:
        student: For the student and the fake score.
        teacher: The teacher's conditional branch without guidance.
        positive, negative: The two branches of the teacher whose difference is the direction of guidance;
            ``positive`` is ``teacher`` itself where one call serves both.
        contrast: Factor that makes ``positive - negative`` the difference per unit of guidance.
    """

    student: Conditioning
    teacher: Conditioning
    positive: Conditioning
    negative: Conditioning
    contrast: float = 1.0
