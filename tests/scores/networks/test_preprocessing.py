"""What a picture becomes before a CLIP-like network sees it, against stored pixels and against sums done here.

``pixels.json`` holds a 29 x 20 pattern made 8 x 8: ``processor`` by transformers' own CLIPImageProcessorPil (5.23 with
Pillow 13), ``even`` by Pillow's resize and the crop at column 2, where torchvision would cut.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.scores.networks.preprocessing import (
    cropped_square,
    cropped_square_of_floats,
    normalised,
    padded_square,
    unit_pixels,
)
from tests.scores.tiny_pictures import pattern

STORED = json.loads((Path(__file__).parent / "pixels.json").read_text(encoding="utf-8"))
# two decimals of 1/255 in normalised units: an 8-bit step is 0.0146
EXACT = 2e-6


def keys(side: int, of: int, kernel: Any, support: float) -> np.ndarray[Any, Any]:
    """The matrix that resizes ``of`` pixels to ``side`` with a kernel widened by the scale, in float64."""
    scale = of / side
    wide = max(scale, 1.0)
    matrix = np.zeros((side, of))
    for row in range(side):
        centre = (row + 0.5) * scale
        first, last = max(int(centre - support * wide + 0.5), 0), min(int(centre + support * wide + 0.5), of)
        weights = np.array([kernel((column - centre + 0.5) / wide) for column in range(first, last)])
        matrix[row, first:last] = weights / weights.sum()
    return matrix


def bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def resized_by_hand(image: Image.Image, width: int, height: int, kernel: Any, support: float) -> Tensor:
    pixels = np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 255
    down, across = keys(height, image.height, kernel, support), keys(width, image.width, kernel, support)
    return torch.from_numpy(down @ pixels @ across.T)


def test_the_processors_pixels_are_met() -> None:
    pixels = normalised(cropped_square(pattern(29, 20), 8, centring="down"))
    assert torch.allclose(pixels, torch.tensor(STORED["processor"]), atol=EXACT, rtol=0)


def test_the_crop_that_rounds_to_even_is_one_column_further() -> None:
    pixels = normalised(cropped_square(pattern(29, 20), 8, centring="even"))
    assert torch.allclose(pixels, torch.tensor(STORED["even"]), atol=EXACT, rtol=0)


def test_float_pixels_are_resized_by_the_antialiased_bilinear_filter() -> None:
    image = pattern(29, 20)
    by_hand = resized_by_hand(image, 11, 8, bilinear, 1)[:, :, 2:10]
    pixels = cropped_square_of_floats(image, 8, mode="bilinear", centring="even")
    assert torch.allclose(pixels.double(), by_hand, atol=1e-6, rtol=0)  # float32 sums of float64 ones


def test_float_pixels_are_resized_by_the_antialiased_bicubic_filter() -> None:
    image = pattern(40, 30)
    by_hand = resized_by_hand(image, 8, 6, bicubic, 2)
    pixels = padded_square(image, 8, on="floats")
    assert torch.allclose(pixels[:, 1:7].double(), by_hand, atol=1e-6, rtol=0)


def test_a_wide_picture_is_padded_above_and_below_with_black() -> None:
    pixels = padded_square(pattern(40, 25), 8, on="pillow")
    # 25 * 8 / 40 = 5 rows of picture; of the 3 others 1 is above and 2 are below
    assert pixels.shape == (3, 8, 8) and (pixels[:, 1:6] > 0).any(dim=(0, 2)).all()
    assert pixels[:, 0].eq(0).all() and pixels[:, 6:].eq(0).all()


def test_pillows_bicubic_is_that_filter_in_whole_steps_of_8_bits() -> None:
    image = pattern(40, 30)
    expected = unit_pixels(image.resize((8, 6), Image.Resampling.BICUBIC))
    assert torch.equal(padded_square(image, 8, on="pillow")[:, 1:7], expected)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    image = pattern(8, 8)
    assert torch.equal(cropped_square_of_floats(image, 8, mode="bilinear", centring="even"), unit_pixels(image))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_every_mode_of_picture_becomes_three_channels(mode: str) -> None:
    assert unit_pixels(pattern(5, 4).convert(mode)).shape == (3, 4, 5)


def test_a_black_pixel_is_minus_mean_over_deviation() -> None:
    black = normalised(unit_pixels(Image.new("RGB", (1, 1))))
    assert black.flatten().tolist() == pytest.approx([-1.792263, -1.752097, -1.480220], abs=1e-6)
