"""From a picture to the numbers that a CLIP-like network reads; the resize filter changes scores, so each is named.

Two filters: Pillow's bicubic on 8-bit pixels, what the Hugging Face processors and the first CLIP do; and an
antialiased filter on float pixels, what torchvision does when it is given a tensor.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

Pixels = Float[Tensor, "3 h w"]
_FloatFilter = Literal["bilinear", "bicubic"]
# how half a pixel is settled when a crop cannot be centred: the processors round down, torchvision to even
_Centring = Literal["down", "even"]

_Channels = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of red, green and blue."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET: _Channels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def unit_pixels(image: Image.Image) -> Pixels:
    """Pixels in [0, 1] as float32."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def normalised(pixels: Pixels, channels: _Channels = (CLIP_MEAN, CLIP_STD)) -> Pixels:
    """Subtract the mean that a network was trained with and divide by the deviation, per channel."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in channels)
    return (pixels - mean) / std


def squashed(image: Image.Image, size: int, channels: _Channels = (CLIP_MEAN, CLIP_STD)) -> Pixels:
    """A picture resized to a square with Pillow's bicubic filter, whatever its shape, and normalised."""
    return normalised(unit_pixels(image.resize((size, size), Image.Resampling.BICUBIC)), channels)


def cropped_square(image: Image.Image, size: int, *, centring: _Centring) -> Pixels:
    """Resize the shorter side to ``size`` with Pillow's bicubic filter and cut out the central square."""
    width, height = _shorter_side_to(size, *image.size)
    return _centre(unit_pixels(image.resize((width, height), Image.Resampling.BICUBIC)), size, centring)


def cropped_square_of_floats(image: Image.Image, size: int, *, mode: _FloatFilter, centring: _Centring) -> Pixels:
    """The same on float pixels, with an antialiased filter."""
    width, height = _shorter_side_to(size, *image.size)
    return _centre(_resized(unit_pixels(image), height, width, mode), size, centring)


def padded_square(image: Image.Image, size: int, *, on: Literal["floats", "pillow"]) -> Pixels:
    """Resize the longer side to ``size``, bicubic, and fill the rest of the square with black on both sides."""
    scale = size / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    if on == "pillow":
        pixels = unit_pixels(image.resize((width, height), Image.Resampling.BICUBIC))
    else:
        pixels = _resized(unit_pixels(image), height, width, "bicubic")
    across, down = size - width, size - height
    return pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))


def _shorter_side_to(size: int, width: int, height: int) -> tuple[int, int]:
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _centre(pixels: Pixels, size: int, centring: _Centring) -> Pixels:
    top, left = ((side - size) // 2 if centring == "down" else round((side - size) / 2) for side in (pixels.shape[1:]))
    return pixels[:, top : top + size, left : left + size]


def _resized(pixels: Pixels, height: int, width: int, mode: _FloatFilter) -> Pixels:
    if pixels.shape[1:] == (height, width):
        return pixels
    return interpolate(pixels[None], (height, width), mode=mode, antialias=True, align_corners=False)[0]
