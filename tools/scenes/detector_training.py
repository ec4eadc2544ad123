"""Training of the detector, on pictures of the renderer, clear and spoilt, that no teacher is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.embedded.scenes.detector import CELL, GRID, SceneDetector
from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, TINTS
from tools.scenes.pictures import Drawn

Targets = dict[str, Tensor]
SOFTENED = 0.3
"""Of the mean over nine pixels, mixed into a picture at most; it leaves .83 of a dot."""


def targets_of(drawn: Sequence[Drawn]) -> Targets:
    """Make what the detector shall say: centres, their offsets, the classes of clear ones (-1 elsewhere), the ground.

    What an object is, and whether it is clear, is to be said beside its centre too: a centre between two cells may be
    found in either. Murky are cells of the ground; those of clear objects are not, and of others nothing is asked (-1).
    """
    n = len(drawn)
    noun = torch.full((n, GRID, GRID), -1)
    tint, offset = noun.clone(), torch.zeros(n, 2, GRID, GRID)
    centre, near = (torch.zeros(n, GRID, GRID, dtype=torch.bool) for _ in range(2))  # near: neither one nor none
    clear, murky = torch.full((n, GRID, GRID), -1.0), torch.full((n, GRID, GRID), -1.0)
    nearest = torch.full((n, GRID, GRID), math.inf)
    middles = torch.arange(GRID) + 0.5
    for index, picture in enumerate(drawn):
        if picture.ground:
            columns, rows = zip(*picture.ground, strict=True)
            murky[index, rows, columns] = torch.tensor([*picture.ground.values()]).float()
        for placed in picture.objects:
            if placed.clear:
                murky[index][placed.cells] = 0.0
            x, y = (coordinate / CELL for coordinate in placed.centre)
            centre[index, min(int(y), GRID - 1), min(int(x), GRID - 1)] = True
            right, down = (x - middles).expand(GRID, GRID), (y - middles)[:, None].expand(GRID, GRID)
            apart = torch.maximum(right.abs(), down.abs())
            own = (apart < 1.5) & (apart < nearest[index])
            nearest[index][own] = apart[own]
            near[index] |= own
            clear[index][own] = float(placed.clear)
            noun[index][own] = NOUNS.index(placed.noun) if placed.clear else -1
            tint[index][own] = (0 if placed.tint is None else 1 + TINTS.index(placed.tint)) if placed.clear else -1
            offset[index][:, own] = torch.stack([right[own], down[own]])
    return {
        "centre": centre,
        "noun": noun,
        "tint": tint,
        "offset": offset,
        "near": near,
        "clear": clear,
        "murky": murky,
        "background": torch.tensor([BACKGROUNDS.index(picture.background) for picture in drawn]),
        "style": torch.tensor([STYLES.index(picture.style) for picture in drawn]),
    }


def detector_loss(detector: SceneDetector, values: Tensor, targets: Targets) -> Tensor:
    """Add up the terms for values in [-1, 1]; all of them are means, in nats but for the offset."""
    maps = detector.look(values)
    there = targets["centre"]
    free = there | ~targets["near"]
    centre = functional.binary_cross_entropy_with_logits(maps.centre.float()[free], there[free].float())
    clear, murky = (
        functional.binary_cross_entropy_with_logits(logits.float()[told >= 0], told[told >= 0])
        for logits, told in ((maps.clear, targets["clear"]), (maps.murky, targets["murky"]))
    )
    cells = [
        functional.cross_entropy(logits.float(), targets[name], ignore_index=-1)
        for name, logits in (("noun", maps.noun), ("tint", maps.tint))
    ]
    wide = targets["near"][:, None].expand_as(maps.offset)
    offset = (maps.offset.float() - targets["offset"])[wide].square().mean()
    whole = [
        functional.cross_entropy(logits.float(), targets[name])
        for name, logits in (("background", maps.background), ("style", maps.style))
    ]
    return 10 * centre + 2 * clear + 5 * murky + 4 * sum(cells) + 5 * offset + sum(whole)


def blurred(values: Tensor, generator: torch.Generator) -> Tensor:
    """Soften a random half of some pictures a little, not so that a dot is faint, and add a little noise to all."""
    soft = functional.avg_pool2d(functional.pad(values, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = SOFTENED * torch.rand(len(values), 1, 1, 1, generator=generator)
    share = torch.where(torch.rand(share.shape, generator=generator) < 0.5, share, 0.0)
    noise = 0.04 * torch.rand(len(values), 1, 1, 1, generator=generator)
    return values.lerp(soft, share) + noise * torch.randn(values.shape, generator=generator)


def train_detector(
    batches: Callable[[int], tuple[Tensor, Targets, int]],
    *,
    num_steps: int,
    lr: float,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> SceneDetector:
    """Train the detector with a cosine learning rate.

    Args:
        batches: Byte pixels and targets of a step; and how many of the first pictures are to be read as they are.
        num_steps: How many.
        lr: The highest rate.
        seed: Of its weights, and of blur and noise.
        report: Receives step and loss.
    """
    torch.manual_seed(seed)
    detector = SceneDetector()
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(detector.parameters(), lr=lr, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=num_steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        pixels, targets, asis = batches(step)
        values = pixels.float() / 127.5 - 1
        values[asis:] = blurred(values[asis:], generator)
        values = values.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = detector_loss(detector, values, targets)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            report(step, {"loss": float(loss.detach())})
    detector.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return detector.eval().requires_grad_(False)
