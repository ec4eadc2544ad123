"""The demo's classifier: which digit and which colour a picture shows, and the 64 features that the metrics use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.embedded.digits.prompts import NUM_COLOURS, NUM_DIGITS
from fewstep.embedded.digits.task import Digits
from fewstep.tensors import all_tensors

IMAGE_SIZE = Digits.image_size
_NUM_FEATURES = 64


@dataclass(frozen=True)
class Predictions:
    """What the classifier says of pictures: class numbers (int64, ``(n,)``) and features (float32, ``(n, 64)``)."""

    digits: Tensor
    colours: Tensor
    features: Tensor

    def matches(self, digits: Tensor, colours: Tensor) -> Tensor:
        """Tell for every picture whether both digit and colour are the given ones."""
        return (self.digits == digits) & (self.colours == colours)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class DigitClassifier(nn.Module):
    """A small convolutional network with one head for the digit and one for the colour.

    It reads byte pixels, uint8 ``(n, 3, 32, 32)``; a PIL picture ``p`` of 32x32 becomes one row of that with
    ``torch.from_numpy(numpy.asarray(p)).permute(2, 0, 1)``. Byte pixels, and not floats, because every row of a
    comparison has to be rounded in the same way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(_stage(3, 16, 2), _stage(16, 32, 1), _stage(32, 64, 2), _stage(64, 64, 2))
        self.embed = nn.Linear(64 * 4 * 4, _NUM_FEATURES)
        self.dropout = nn.Dropout(0.2)
        self.digit_head = nn.Linear(_NUM_FEATURES, NUM_DIGITS)
        self.colour_head = nn.Linear(_NUM_FEATURES, NUM_COLOURS)

    def features(self, pixels: Tensor) -> Tensor:
        """Compute the 64 penultimate features of byte pixels."""
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise TypeError(f"expected uint8 (n, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), got {pixels.dtype} {pixels.shape}")
        features: Tensor = self.embed(self.stages(pixels.float() / 127.5 - 1).flatten(1)).relu()
        return features

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of digit and colour of byte pixels."""
        features = self.dropout(self.features(pixels))
        return self.digit_head(features), self.colour_head(features)

    @torch.no_grad()
    def predict(self, pixels: Tensor, *, batch: int = 256) -> Predictions:
        """Classify byte pixels and return their features."""
        features = torch.cat([self.features(part) for part in torch.split(pixels, batch)])
        return Predictions(self.digit_head(features).argmax(-1), self.colour_head(features).argmax(-1), features)


def read_classifier(path: Path) -> DigitClassifier:
    """Read the weights, ready for prediction."""
    classifier = DigitClassifier()
    classifier.load_state_dict(all_tensors(path))
    return classifier.eval().requires_grad_(False)
