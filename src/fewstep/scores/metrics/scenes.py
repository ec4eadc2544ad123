"""The metric of the embedded scenes: are the objects there, in the number, the colours and the places asked for."""

from collections.abc import Sequence

import torch
from PIL import Image

from fewstep.embedded.scenes.detector import Found
from fewstep.embedded.scenes.grammar import parse
from fewstep.embedded.scenes.judging import CATEGORIES, category, is_clear, is_right
from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem, mean_score
from fewstep.scores.metrics.feature_metric import prepared
from fewstep.scores.networks.extractors import SCENES, EmbeddedExtractor


class ScenesMetric(Metric):
    """Share of pictures in which the embedded detector finds all that the prompt names, and no more."""

    card = MetricCard(
        name="scenes",
        title="Scenes: objects, counts, colours, positions",
        formula=(
            "1 when the detector finds the objects that the prompt names, in their number, tints, places and on the "
            "ground it names, and no others, and the dots of the ground clear, else 0; mean over pictures of a "
            "category, then over the categories; scenes_clear also asks that no object is faint, soft, doubled or "
            "mixed with another"
        ),
        scale="0 to 1",
        higher_is_better=True,
        preprocessing="none: pictures of 48x48",
        licence="Apache-2.0 (part of fewstep)",
        comparable="with the overall score of `scenes` in docs/scenes.md; with nothing else",
        source=None,
    )

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._detector = EmbeddedExtractor(SCENES, None)
        self.networks = (self._detector,)

    def check(self, items: Sequence[PromptItem]) -> None:
        if self.settings.source is not None:
            raise ConfigError(
                f"{self.card.name}.source is {self.settings.source}, but its detector ships inside the package."
            )
        super().check(items)

    def check_prompt(self, item: PromptItem) -> None:
        try:
            parse(item.text)
        except ValueError as error:
            raise ConfigError(
                f"scenes cannot score a prompt: {error}. Leave the metric out for these prompts."
            ) from error

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        pixels = torch.stack(prepared(self, self._detector, pictures, images)).to(self._detector.device)
        seen, _ = self._detector.network.see(pixels)
        findings = []
        for picture, found in zip(pictures, seen, strict=True):
            told = {
                "found": sorted(_told(one) for one in found.objects),
                "background": found.background,
                "clear": is_clear(found),
                "murky_cells": found.murky,
            }
            findings.append(Finding(float(is_right(parse(picture.item.text), found)), told))
        return findings

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        groups: dict[str, list[Finding]] = {}
        for picture, finding in zip(pictures, findings, strict=True):
            groups.setdefault(category(parse(picture.item.text)), []).append(finding)
        means = {name: mean_score(groups[name]) for name in CATEGORIES if name in groups}
        clear = [sum(one.score * one.details["clear"] for one in groups[name]) / len(groups[name]) for name in means]
        return {
            self.card.name: sum(means.values()) / len(means),
            **{f"scenes_{n}": value for n, value in means.items()},
            "scenes_clear": sum(clear) / len(clear),
        }


def _told(one: Found) -> str:
    return " ".join(filter(None, ("" if one.clear else "unclear", one.tint, one.noun)))
