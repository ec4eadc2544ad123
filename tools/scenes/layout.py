"""What each cell of a picture shows, read off the hidden states of a half-deep block while the teacher is trained.

A network that has to say so learns what words look like, where they may stand, and which part of a thing a cell holds,
from many more bits than the velocity holds (after Yu et al. 2024, "Representation Alignment for Generation", where the
target is a feature of another network). The head is thrown away with the training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.embedded.scenes.detector import CELL, GRID
from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, TINTS
from tools.scenes.classes import NO_CLASS, classes_loss
from tools.scenes.pictures import SIDES, Drawn

ALL_SIDES = tuple(sorted({side for sides in SIDES.values() for side in sides}))
LONGEST = -(-max(ALL_SIDES) // CELL)
ASPECTS = {
    "noun": 1 + len(NOUNS),
    "row": LONGEST,
    "column": LONGEST,
    "side": len(ALL_SIDES),
    "tint": 1 + len(TINTS),
    "style": len(STYLES),
    "background": len(BACKGROUNDS),
}
"""How many classes there are; the first of ``noun`` is the ground, which has no size; a thing has no background."""
CLASSES = sum(ASPECTS.values())


def cells_of(picture: Drawn) -> Tensor:
    """Name every aspect of what covers the middle of each 4x4 cell, ``(7, 12, 12)``.

    Row and column are those of the cell in its object.
    """
    names = list(ASPECTS)
    told = torch.full((len(names), GRID, GRID), NO_CLASS, dtype=torch.uint8)
    told[names.index("noun")] = 0
    told[names.index("background")] = BACKGROUNDS.index(picture.background)
    middles = CELL * torch.arange(GRID) + CELL // 2
    for placed in picture.objects:
        rows = (placed.top <= middles) & (middles < placed.top + placed.height)
        columns = (placed.left <= middles) & (middles < placed.left + placed.width)
        inside = {
            "noun": torch.tensor(1 + NOUNS.index(placed.noun)),
            "row": ((middles - placed.top) // CELL)[:, None],
            "column": ((middles - placed.left) // CELL)[None, :],
            "side": torch.tensor(ALL_SIDES.index(placed.side)),
            "tint": torch.tensor(0 if placed.tint is None else 1 + TINTS.index(placed.tint)),
            "style": torch.tensor(STYLES.index(picture.style)),
            "background": torch.tensor(NO_CLASS),
        }
        values = torch.stack([inside[name].expand(GRID, GRID) for name in names]).to(torch.uint8)
        told = torch.where(rows[:, None] & columns[None, :], values, told)
    return told


def layout_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over aspects and averaged over cells.

    Args:
        logits: Of the cells of each image token, ``(b, tokens, patch * patch, classes)``.
        cells: What they show, ``(b, 7, 12, 12)``.
    """
    patch = int(logits.shape[2] ** 0.5)
    told: Tensor = functional.pixel_unshuffle(cells.long(), patch)
    flat = told.view(len(cells), len(ASPECTS), patch * patch, -1).permute(1, 0, 3, 2).flatten(1)
    return classes_loss(logits.flatten(0, 2), flat, ASPECTS) / flat.shape[1]
