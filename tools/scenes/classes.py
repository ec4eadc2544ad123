"""Several questions asked of one place, each answered by classes: what the teacher's helping heads learn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

NO_CLASS = 255
"""Asks nothing: the loss leaves it out."""


def classes_loss(logits: Tensor, told: Tensor, questions: Mapping[str, int]) -> Tensor:
    """Cross-entropy in nats, summed over questions and places.

    Args:
        logits: Of every question's classes beside each other, ``(places, classes)``.
        told: The class of each, ``(questions, places)``, or ``NO_CLASS``.
        questions: How many classes each of them has.
    """
    loss = torch.zeros(())
    own: Tensor
    for own, classes in zip(torch.split(logits.float(), [*questions.values()], 1), told, strict=True):
        loss = loss + functional.cross_entropy(own, classes, ignore_index=NO_CLASS, reduction="sum")
    return loss
