"""LPIPS diversity: how far apart the pictures of one prompt look to a network fitted to people's judgements."""

from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from pydantic import Field

from fewstep.bounds import Pixels
from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem
from fewstep.scores.metrics.feature_metric import prompt_numbers
from fewstep.scores.networks.lpips import Lpips
from fewstep.scores.networks.preprocessing import IMAGENET, squashed
from fewstep.scores.statistics.diversity import within_prompt_diversity

_MAKE = "python -c \"import lpips, torch; torch.save(lpips.LPIPS(net='alex').state_dict(), 'lpips_alex.pth')\""


class _LpipsSettings(MetricSettings):
    """At which size pictures are compared."""

    frames: Literal["middle"] = Field(default="middle", description="of a clip: middle")
    size: Pixels = Field(default=256, description="pixels of the square that pictures are compared at")


class LpipsMetric(Metric):
    """Mean LPIPS of two pictures of one prompt that differ in their seed, also called intra-LPIPS."""

    card = MetricCard(
        name="lpips",
        title="LPIPS diversity within a prompt",
        formula=(
            "mean over prompts of the mean over all pairs of pictures of the prompt of LPIPS 0.1 on AlexNet: "
            "sum_l mean_hw sum_c w_lc (a_lc / |a_l| - b_lc / |b_l|)^2"
        ),
        scale="0 (a prompt always gives one picture) to about 0.8",
        higher_is_better=True,
        preprocessing="Pillow's bicubic filter to a square of the size, no crop; ImageNet's mean and deviation",
        licence="BSD-2-Clause (LPIPS), BSD-3-Clause (AlexNet of torchvision)",
        comparable=(
            "with LPIPS diversity of the same size and prompts on AlexNet; tables on VGG differ. No repository has the "
            f"file in its authors' form: with lpips and torchvision installed anywhere, {_MAKE}, then "
            "--set lpips.source=FOLDER --set lpips.allow_pickle=true. A picture's vector has 2.6 MB at 256 pixels"
        ),
        source=None,
    )
    settings_class = _LpipsSettings
    settings: _LpipsSettings
    reads_prompts = False
    of_sets = True
    min_seeds = 2

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self.networks = () if settings.source is None else (Lpips(self.checkpoint),)

    def check(self, items: Sequence[PromptItem]) -> None:
        if self.settings.source is None:
            raise ConfigError(
                f"lpips has no checkpoint on the hub: write it once with {_MAKE} where lpips and torchvision are "
                "installed, and give its folder with --set lpips.source=FOLDER --set lpips.allow_pickle=true."
            )
        super().check(items)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        (lpips,) = self.networks
        pixels = torch.stack([squashed(image, self.settings.size, IMAGENET) for image in images])
        return [Finding(features=row) for row in lpips.network(pixels.to(lpips.device)).float().cpu()]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = torch.stack([finding.features for finding in findings if finding.features is not None])
        prompts = prompt_numbers(pictures)
        return {self.card.name: within_prompt_diversity(rows, prompts, squared=True)}
