"""The task ``digits``: handwritten digits in seven colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.embedded.assets import DIGITS
from fewstep.embedded.digits.prompts import all_prompts, full_prompts, open_colour_prompts
from fewstep.embedded.task import EmbeddedTask

if TYPE_CHECKING:
    from fewstep.embedded.digits.classifier import DigitClassifier


class Digits(EmbeddedTask["DigitClassifier"]):
    """Judged by a classifier of 64 features; the reference is of 20 pictures of each full prompt."""

    name = DIGITS
    example = "a red handwritten three"
    image_size = 32
    prompt_sets = (DIGITS, "digits-open")
    judge_file = "classifier.safetensors"

    def prompts(self, prompt_set: str) -> Sequence[str]:
        return full_prompts() if prompt_set == self.name else open_colour_prompts()

    def training_prompts(self) -> Sequence[str]:
        return [prompt for prompt in all_prompts() if prompt]  # the empty one is the null prompt

    def read_judge(self, path: Path) -> DigitClassifier:
        from fewstep.embedded.digits.classifier import read_classifier

        return read_classifier(path)
