"""The pictures that the teacher learns from: scikit-learn's handwritten digits, warped, enlarged and tinted.

Only :func:`load_base_digits` needs scikit-learn. Everything else is a pure function of its arguments and a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from fewstep.embedded.assets import DIGITS, check_files
from fewstep.embedded.digits.classifier import IMAGE_SIZE
from fewstep.embedded.digits.prompts import COLOURS, NUM_COLOURS, NUM_DIGITS
from fewstep.errors import ConfigError

HELD_OUT_FILE = "held_out.safetensors"
NUM_BASE_DIGITS = 1797
MAX_ROTATION_DEGREES = 10.0
MAX_SHIFT = 0.10
MAX_SCALE_CHANGE = 0.12


@dataclass(frozen=True)
class BaseDigits:
    """Grey 8x8 digits in [0, 1] (float32, ``(n, 8, 8)``) and what they show (int64, ``(n,)``)."""

    images: Tensor
    digits: Tensor

    def __len__(self) -> int:
        return len(self.digits)

    def take(self, index: Tensor) -> BaseDigits:
        """Select base digits by position."""
        return BaseDigits(self.images[index], self.digits[index])


@dataclass(frozen=True)
class DigitImages:
    """Coloured pictures (uint8, ``(n, 3, 32, 32)``) with their digit and colour (int64, ``(n,)``)."""

    pixels: Tensor
    digits: Tensor
    colours: Tensor

    def __len__(self) -> int:
        return len(self.digits)


def load_base_digits() -> BaseDigits:
    """Load the 1,797 digits that ship inside scikit-learn (BSD), scaled to [0, 1].

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            "Rebuilding the embedded teacher needs the digits inside scikit-learn, which is not installed. "
            "Install it with `pip install scikit-learn`; using the shipped teacher does not need it."
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(np.asarray(bunch.images, dtype=np.float32) / 16.0)
    return BaseDigits(images, torch.from_numpy(np.asarray(bunch.target, dtype=np.int64)))


def load_held_out() -> BaseDigits:
    """Check and load the base digits that ship: neither teacher nor classifier has seen them; scaled to [0, 1]."""
    stored = load_file(check_files(DIGITS, under=HELD_OUT_FILE))
    return BaseDigits(stored["images"].float() / 16, stored["digits"])


def split_base_digits(base: BaseDigits, *, held_out: float, seed: int) -> tuple[BaseDigits, BaseDigits]:
    """Split base digits, digit by digit, into those for training and those held out for the reference.

    Args:
        base: All base digits.
        held_out: Share of every digit that training never sees.
        seed: Names the split.

    Returns:
        The training part and the held-out part.
    """
    generator = torch.Generator().manual_seed(seed)
    train: list[Tensor] = []
    kept: list[Tensor] = []
    for digit in range(NUM_DIGITS):
        members = (base.digits == digit).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        num_kept = round(held_out * len(members))
        kept.append(members[:num_kept])
        train.append(members[num_kept:])
    return base.take(torch.cat(train)), base.take(torch.cat(kept))


def random_affine(num: int, generator: torch.Generator) -> Tensor:
    """Draw ``num`` sampling maps (2x3, output to input coordinates): rotation, scale and shift, each uniform."""
    unit = torch.rand(4, num, generator=generator) * 2 - 1
    angle = unit[0] * math.radians(MAX_ROTATION_DEGREES)
    scale = 1 + unit[1] * MAX_SCALE_CHANGE
    # a shift of 10 % of the picture is 0.2 in grid_sample's coordinates, which run from -1 to 1
    shift = unit[2:] * 2 * MAX_SHIFT
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cosine, -sine, shift[0]], dim=-1), torch.stack([sine, cosine, shift[1]], dim=-1)]
    return torch.stack(rows, dim=-2)


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Resample grey 8x8 digits to 32x32 under affine maps, bicubic, in one resampling; black outside."""
    # one black pixel of margin on each side, so that a shifted digit rarely leaves the picture
    padded = functional.pad(images[:, None], (1, 1, 1, 1))
    grid = functional.affine_grid(maps, [len(images), 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    warped = functional.grid_sample(padded, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return warped[:, 0].clamp(0, 1)


def tint(grey: Tensor, colours: Tensor) -> Tensor:
    """Colour grey 32x32 pictures on black and round them to bytes."""
    palette = torch.tensor(list(COLOURS.values()))
    coloured = grey[:, None] * palette[colours][:, :, None, None]
    return (coloured * 255).round().to(torch.uint8)


def render(base: BaseDigits, index: Tensor, colours: Tensor, *, generator: torch.Generator) -> DigitImages:
    """Render base digits ``index`` in the given colours, each under its own random affine map."""
    maps = random_affine(len(index), generator)
    return DigitImages(tint(warp(base.images[index], maps), colours), base.digits[index], colours)


def draw_pool(base: BaseDigits, *, num_per_digit: int, seed: int) -> DigitImages:
    """Render every base digit ``num_per_digit`` times, the colours taken in turn so that they are balanced."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(len(base)).repeat(num_per_digit)
    first = torch.randint(NUM_COLOURS, (len(base),), generator=generator).repeat(num_per_digit)
    turn = torch.arange(num_per_digit).repeat_interleave(len(base))
    return render(base, index, (first + turn) % NUM_COLOURS, generator=generator)


def draw_prompted(base: BaseDigits, prompts: Sequence[tuple[int, int | None]], *, seed: int) -> DigitImages:
    """Draw one real picture per (digit, colour): a base digit at random, a random colour where it is ``None``."""
    generator = torch.Generator().manual_seed(seed)
    members = [(base.digits == digit).nonzero().flatten() for digit in range(NUM_DIGITS)]
    index, colours = [], []
    for digit, colour in prompts:
        choice = torch.randint(len(members[digit]), (), generator=generator)
        index.append(members[digit][choice])
        free = int(torch.randint(NUM_COLOURS, (), generator=generator))
        colours.append(free if colour is None else colour)
    return render(base, torch.stack(index), torch.tensor(colours), generator=generator)
