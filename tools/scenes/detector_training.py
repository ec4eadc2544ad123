"""Training of the detector, on pictures of the renderer, sharp and blurred, that no teacher is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.embedded.scenes.detector import CELL, GRID, SceneDetector
from fewstep.embedded.scenes.grammar import BACKGROUNDS, STYLES, TINTS
from tools.scenes.pictures import NOUN_NUMBER, Drawn

Targets = dict[str, Tensor]


def targets_of(drawn: Sequence[Drawn]) -> Targets:
    """Make what the detector shall say: classes at the cells of centres (-1 elsewhere), their offsets, the ground."""
    n = len(drawn)
    noun = torch.full((n, GRID, GRID), -1)
    tint, offset = noun.clone(), torch.zeros(n, 2, GRID, GRID)
    near = torch.zeros(n, GRID, GRID, dtype=torch.bool)  # beside a centre: neither one nor none
    for index, picture in enumerate(drawn):
        for placed in picture.objects:
            x, y = (coordinate / CELL for coordinate in placed.centre)
            column, row = min(int(x), GRID - 1), min(int(y), GRID - 1)
            near[index, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
            noun[index, row, column] = NOUN_NUMBER[placed.noun]
            tint[index, row, column] = 0 if placed.tint is None else 1 + TINTS.index(placed.tint)
            offset[index, :, row, column] = torch.tensor([x - column - 0.5, y - row - 0.5])
    return {
        "noun": noun,
        "tint": tint,
        "offset": offset,
        "near": near,
        "background": torch.tensor([BACKGROUNDS.index(picture.background) for picture in drawn]),
        "style": torch.tensor([STYLES.index(picture.style) for picture in drawn]),
    }


def detector_loss(detector: SceneDetector, values: Tensor, targets: Targets) -> Tensor:
    """Add up the terms for values in [-1, 1]; all of them are means, in nats but for the offset."""
    maps = detector.look(values)
    there = targets["noun"] >= 0
    free = there | ~targets["near"]
    centre = functional.binary_cross_entropy_with_logits(maps.centre.float()[free], there[free].float())
    cells = [
        functional.cross_entropy(logits.float(), targets[name], ignore_index=-1)
        for name, logits in (("noun", maps.noun), ("tint", maps.tint))
    ]
    wide = there[:, None].expand_as(maps.offset)
    offset = (maps.offset.float() - targets["offset"])[wide].square().mean()
    whole = [
        functional.cross_entropy(logits.float(), targets[name])
        for name, logits in (("background", maps.background), ("style", maps.style))
    ]
    return 10 * centre + sum(cells) + 5 * offset + sum(whole)


def blurred(values: Tensor, generator: torch.Generator) -> Tensor:
    """Soften a random half of some pictures by a random amount, and add a little noise to all."""
    soft = functional.avg_pool2d(functional.pad(values, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(values), 1, 1, 1, generator=generator)
    share = torch.where(torch.rand(share.shape, generator=generator) < 0.5, share, 0.0)
    noise = 0.04 * torch.rand(len(values), 1, 1, 1, generator=generator)
    return values.lerp(soft, share) + noise * torch.randn(values.shape, generator=generator)


def train_detector(
    batches: Callable[[int], tuple[Tensor, Targets]],
    *,
    num_steps: int,
    lr: float,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> SceneDetector:
    """Train the detector with a cosine learning rate.

    Args:
        batches: Byte pixels and targets of a step.
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
        pixels, targets = batches(step)
        values = blurred(pixels.float() / 127.5 - 1, generator).contiguous(memory_format=torch.channels_last)
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
