"""Kernel distance between the features of drawn and of real pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import ReferenceMetric, prompt_numbers
from fewstep.scores.metrics.reference import Reference, Statistics
from fewstep.scores.networks.extractors import INCEPTION
from fewstep.scores.statistics.kernel import kernel_distance


class KidMetric(ReferenceMetric):
    """Kernel Inception distance, unbiased, from all pairs of pictures."""

    card = MetricCard(
        name="kid",
        title="Kernel distance to real pictures",
        formula=(
            "1000 (E k(r, r') + E k(g, g') - 2 E k(r, g)) with k(a, b) = (a . b / d + 1)^3, over all pairs of "
            "different pictures; with several pictures per prompt, pairs of one prompt are weighted as two draws would "
            "form them"
        ),
        scale="times 1000; about 0 for equal laws, and may be slightly negative, for it is unbiased",
        higher_is_better=False,
        preprocessing="as fid",
        licence=INCEPTION.licence,
        comparable=(
            "with KID x 1000 of the same features, up to its noise: others average 100 random subsets of 1000 "
            "pictures, which estimates the same number with a larger variance"
        ),
        source=INCEPTION.source,
    )

    def compare(
        self, reference: Reference | Statistics, pictures: Sequence[Picture], features: Tensor
    ) -> dict[str, float]:
        real = self.all_features(reference)
        prompts = prompt_numbers(pictures)
        repeated = len(prompts) > 0 and int(torch.bincount(prompts).min()) >= 2
        distance = kernel_distance(
            real.features, features, real_strata=real.strata, generated_strata=prompts if repeated else None
        )
        return {self.card.name: distance}
