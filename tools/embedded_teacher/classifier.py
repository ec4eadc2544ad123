"""The training of the classifier that ships beside the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from fewstep.embedded.digits.classifier import DigitClassifier
from tools.embedded_teacher.pictures import DigitImages


def train_classifier(
    pool: DigitImages,
    *,
    num_steps: int,
    batch: int,
    lr: float,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> DigitClassifier:
    """Train the classifier on rendered digits: two cross-entropies with label smoothing, cosine learning rate."""
    torch.manual_seed(seed)
    classifier = DigitClassifier().train()
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.05, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        index = torch.randint(len(pool), (batch,), generator=generator)
        digit_logits, colour_logits = classifier(pool.pixels[index])
        loss = functional.cross_entropy(digit_logits, pool.digits[index], label_smoothing=0.05)
        loss = loss + functional.cross_entropy(colour_logits, pool.colours[index], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            report(step + 1, {"loss": float(loss.detach())})
    return classifier.eval()


def save_classifier(classifier: DigitClassifier, path: Path) -> None:
    """Write the weights as float32 safetensors (a few hundred KB)."""
    save_file({name: value.contiguous() for name, value in classifier.state_dict().items()}, path)
