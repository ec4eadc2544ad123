"""Frechet distance between the features of drawn and of real pictures."""

from collections.abc import Sequence

from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import ReferenceMetric
from fewstep.scores.metrics.reference import Reference, Statistics
from fewstep.scores.networks.extractors import INCEPTION
from fewstep.scores.statistics.frechet import frechet_distance, gaussian_distance


class FidMetric(ReferenceMetric):
    """Frechet Inception distance."""

    card = MetricCard(
        name="fid",
        title="Frechet distance to real pictures",
        formula=(
            "|m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r^1/2 C_g C_r^1/2)^1/2) of the means and unbiased covariances of the "
            "features, in float64"
        ),
        scale="0 is equal; depends on the extractor, the resize, the reference and the number of pictures",
        higher_is_better=False,
        preprocessing="to 299: inception as clean-fid, inception-torch as pytorch-fid, inception-tf1 as TensorFlow",
        licence=INCEPTION.licence,
        comparable=(
            "with clean-fid (extractor inception), pytorch-fid (inception-torch) or torch-fidelity (inception-tf1) on "
            "the same reference, size and number of pictures; not across those three, and not with FD of other features"
        ),
        source=INCEPTION.source,
    )

    def compare(
        self, reference: Reference | Statistics, pictures: Sequence[Picture], features: Tensor
    ) -> dict[str, float]:
        if isinstance(reference, Reference):
            return {self.card.name: frechet_distance(reference.features, features)}
        if len(features) < 2:
            raise ConfigError(f"{self.card.name} has {len(features)} picture; it needs at least two. Draw more.")
        drawn = features.double()
        distance = gaussian_distance(reference.mean, reference.covariance, drawn.mean(0), drawn.mT.cov())
        return {self.card.name: distance}
