"""How well the text that a prompt asks for can be read in the picture."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem, mean_score

_MODELS = "PP-OCRv6 small"
# straight quotes, or a pair of typographic ones
_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”')


class _OcrSettings(MetricSettings):
    """How sure the engine has to be."""

    min_confidence: float = Field(default=0.0, ge=0, le=1, description="lines read with less are left out")


class OcrMetric(Metric):
    """Text rendering: the text read by PP-OCR against the first quoted text of the prompt."""

    card = MetricCard(
        name="ocr",
        title="Text rendering",
        formula=(
            "lower case, no spaces, lines joined: 1 where the quoted text occurs in the text read, else "
            "1 - min(edit distance, length) / length; ocr_exact is the share of ones; ocr_strict counts what is too "
            "much as well: 1 - edit distance / longer length"
        ),
        scale="0 to 1",
        higher_is_better=True,
        preprocessing="none; the engine finds lines at up to 2000 pixels",
        licence="Apache-2.0 (RapidOCR and PP-OCR)",
        comparable="with scores of this formula by the same engine; PaddleOCR's models read a little differently",
        source=None,
        packages=("rapidocr", "onnxruntime", "rapidfuzz"),
    )
    settings_class = _OcrSettings
    settings: _OcrSettings
    _engine: Any = None

    def check(self, items: Sequence[PromptItem]) -> None:
        missing = [package for package in self.card.packages if find_spec(package) is None]
        if missing:
            raise ConfigError(f"ocr needs {' and '.join(missing)}; install with `pip install 'fewstep[eval]'`.")
        if self.settings.source is not None:
            raise ConfigError(f"ocr.source is {self.settings.source}, but its models come with the package rapidocr.")
        super().check(items)

    def check_prompt(self, item: PromptItem) -> None:
        if not comparable_text(quoted(item.text) or ""):
            raise ConfigError(
                f"ocr cannot score the prompt {item.text!r} ({item.id}): it has no text in double quotes. "
                f"Use prompts that quote the text to draw, or leave the metric out."
            )

    def identity(self) -> dict[str, str]:
        return {"models": _MODELS, **{package: version(package) for package in ("rapidocr", "onnxruntime")}}

    def load(self, device: torch.device) -> None:
        from rapidocr import RapidOCR

        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.text_score": self.settings.min_confidence,
                # its own default takes every core, also of the other ranks
                "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads(),
            }
        )

    def unload(self) -> None:
        self._engine = None

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        return [self._look_at(picture, image) for picture, image in zip(pictures, images, strict=True)]

    def _look_at(self, picture: Picture, image: Image.Image) -> Finding:
        try:
            read = self._read(image)
        except Exception as error:
            raise self.cannot_score(picture, f"the engine failed ({error})") from error
        target = quoted(picture.item.text)
        assert target is not None, "check() has seen every prompt"
        return Finding(text_score(target, read), {"target": target, "read": read})

    def _read(self, image: Image.Image) -> str:
        # the engine takes arrays in the order of OpenCV: blue, green, red
        found = self._engine(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        # a picture without text has an answer without lines
        return "\n".join(getattr(found, "txts", None) or ())

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        strict = [strict_score(finding.details["target"], finding.details["read"]) for finding in findings]
        return {
            self.card.name: mean_score(findings),
            "ocr_exact": sum(finding.score == 1 for finding in findings) / len(findings),
            "ocr_strict": sum(strict) / len(strict),
        }


def quoted(prompt: str) -> str | None:
    """The first text in double quotes, or None."""
    found = _QUOTED.search(prompt)
    return None if found is None else found.group(1) or found.group(2) or ""


def comparable_text(text: str) -> str:
    """What of a text is compared: lower case, without white space."""
    return "".join(text.lower().split())


def text_score(target: str, read: str) -> float:
    """1 where ``target`` occurs in ``read``, else the share of its characters that need no edit."""
    from rapidfuzz.distance import Levenshtein

    wanted, found = comparable_text(target), comparable_text(read)
    if wanted in found:
        return 1.0
    return 1 - min(Levenshtein.distance(wanted, found), len(wanted)) / len(wanted)


def strict_score(target: str, read: str) -> float:
    """The share of characters that need no edit, those beyond the target included."""
    from rapidfuzz.distance import Levenshtein

    wanted, found = comparable_text(target), comparable_text(read)
    return 1 - Levenshtein.distance(wanted, found) / max(len(wanted), len(found))
