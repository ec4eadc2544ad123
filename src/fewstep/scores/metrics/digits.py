"""The demo's own metric: does a picture show the digit, in the colour, that the prompt names."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fewstep.embedded.classifier import IMAGE_SIZE, DigitClassifier
from fewstep.embedded.prompts import COLOURS, DIGIT_WORDS
from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricCard, Picture, PromptItem


class DigitsMetric(Metric):
    """Share of pictures in which the embedded classifier sees what the prompt names."""

    card = MetricCard(
        name="digits",
        title="Digit and colour recognised",
        formula="1 when the classifier sees the digit and the colour that the prompt names, else 0; the mean",
        scale="0 to 1",
        higher_is_better=True,
        preprocessing="none: pictures of 32x32",
        licence="Apache-2.0 (part of fewstep)",
        comparable="with the accuracy of `fewstep demo`; with nothing else",
        source=None,
    )

    def check(self, items: Sequence[PromptItem]) -> None:
        from fewstep.embedded.assets import CLASSIFIER_FILE, check_files

        if self.settings.source is not None:
            raise ConfigError(f"digits.source is {self.settings.source}, but its classifier ships inside the package.")
        check_files(under=CLASSIFIER_FILE)
        for item in items:
            if named(item.text) == (None, None):
                raise ConfigError(
                    f"digits cannot score the prompt {item.text!r}, which names neither a digit ({DIGIT_WORDS[0]} to "
                    f"{DIGIT_WORDS[-1]}) nor a colour ({', '.join(COLOURS)}). Leave the metric out for these prompts."
                )

    _classifier: DigitClassifier | None = None

    def load(self, device: torch.device) -> None:
        from fewstep.embedded.assets import load_classifier

        self._classifier = load_classifier().to(device)
        self._device = device

    def unload(self) -> None:
        self._classifier = None

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        assert self._classifier is not None, "load() comes before examine()"
        for picture, image in zip(pictures, images, strict=True):
            if image.size != (IMAGE_SIZE, IMAGE_SIZE):
                size = f"{image.width} x {image.height}"
                raise self.cannot_score(picture, f"it has {size} pixels, not {IMAGE_SIZE} x {IMAGE_SIZE}")
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
        seen = self._classifier.predict(pixels.to(self._device))
        return [
            _finding(picture, digit, colour)
            for picture, digit, colour in zip(pictures, seen.digits.tolist(), seen.colours.tolist(), strict=True)
        ]


def named(prompt: str) -> tuple[int | None, int | None]:
    """The digit and the colour that a prompt names; None where it names none."""
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    digits = [DIGIT_WORDS.index(word) for word in words if word in DIGIT_WORDS]
    colours = [list(COLOURS).index(word) for word in words if word in COLOURS]
    return (digits[0] if digits else None), (colours[0] if colours else None)


def _finding(picture: Picture, digit: int, colour: int) -> Finding:
    asked_digit, asked_colour = named(picture.item.text)
    right = asked_digit in (None, digit) and asked_colour in (None, colour)
    return Finding(float(right), {"digit": DIGIT_WORDS[digit], "colour": list(COLOURS)[colour]})
