"""The metrics of the embedded digits: does a picture show what was asked, and which colours come where none was."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn import functional

from fewstep.embedded.digits.classifier import Predictions
from fewstep.embedded.digits.prompts import COLOURS, DIGIT_WORDS, NUM_COLOURS
from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem
from fewstep.scores.metrics.feature_metric import prepared
from fewstep.scores.networks.extractors import DIGITS, EmbeddedExtractor
from fewstep.scores.statistics.diversity import histogram, total_variation


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

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._classifier = EmbeddedExtractor(DIGITS, None)
        self.networks = (self._classifier,)

    def check(self, items: Sequence[PromptItem]) -> None:
        if self.settings.source is not None:
            raise ConfigError(
                f"{self.card.name}.source is {self.settings.source}, but its classifier ships inside the package."
            )
        super().check(items)

    def check_prompt(self, item: PromptItem) -> None:
        if named(item.text) == (None, None):
            raise ConfigError(
                f"digits cannot score the prompt {item.text!r}, which names neither a digit ({DIGIT_WORDS[0]} to "
                f"{DIGIT_WORDS[-1]}) nor a colour ({', '.join(COLOURS)}). Leave the metric out for these prompts."
            )

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        seen = self.predict(pictures, images)
        return [
            _finding(picture, digit, colour)
            for picture, digit, colour in zip(pictures, seen.digits.tolist(), seen.colours.tolist(), strict=True)
        ]

    def predict(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> Predictions:
        """What the classifier sees."""
        pixels = prepared(self, self._classifier, pictures, images)
        seen: Predictions = self._classifier.network.predict(torch.stack(pixels).to(self._classifier.device))
        return seen


class ColoursMetric(DigitsMetric):
    """How far the colours of pictures whose prompt names none are from the law of the data, equal shares."""

    card = MetricCard(
        name="colours",
        title="Colours where the prompt leaves them open",
        formula=(
            "half the summed difference between the shares of the colours that the classifier sees and equal shares: "
            "the share of pictures that would have to change colour"
        ),
        scale="0 to 6/7",
        higher_is_better=False,
        preprocessing=DigitsMetric.card.preprocessing,
        licence=DigitsMetric.card.licence,
        comparable="with the colour TV of `fewstep demo`; falls with the number of pictures",
        source=None,
    )
    of_sets = True

    def check_prompt(self, item: PromptItem) -> None:
        if named(item.text)[1] is not None:
            raise ConfigError(
                f"colours cannot score the prompt {item.text!r}, which names a colour: it looks at which one a model "
                "takes when it may choose. Leave the metric out, or give --prompts digits-open."
            )

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        seen = self.predict(pictures, images).colours.cpu()
        return [Finding(features=row.float()) for row in functional.one_hot(seen, NUM_COLOURS)]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = [finding.features for finding in findings if finding.features is not None]
        shares = histogram(torch.stack(rows).argmax(dim=1), num_choices=NUM_COLOURS)
        return {self.card.name: total_variation(shares, torch.full_like(shares, 1 / NUM_COLOURS))}


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
