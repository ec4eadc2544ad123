"""Precision, recall, density and coverage of drawn pictures among real ones."""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from fewstep.bounds import Count
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import ReferenceMetric, ReferenceSettings
from fewstep.scores.metrics.reference import Reference, Statistics
from fewstep.scores.networks.extractors import INCEPTION
from fewstep.scores.statistics.prdc import prdc


class PrdcSettings(ReferenceSettings):
    """How large a neighbourhood is."""

    neighbours: Count = Field(default=5, description="which neighbour sets the radius of a neighbourhood")


class PrdcMetric(ReferenceMetric):
    """Are the pictures inside the data (precision, density), and is the data inside the pictures (recall, coverage)."""

    card = MetricCard(
        name="prdc",
        title="Precision, recall, density, coverage",
        formula=(
            "shares of pictures strictly inside the k-nearest-neighbour balls of the other set (Kynkaanniemi 2019, "
            "Naeem 2020), k = 5; density counts the balls, over k"
        ),
        scale="0 to 1; density may exceed 1",
        higher_is_better=True,
        preprocessing="as fid",
        licence=INCEPTION.licence,
        comparable=(
            "with figures of the same features, k and numbers of pictures; the papers use VGG16, these default to the "
            "Inception network of FID"
        ),
        source=INCEPTION.source,
    )
    settings_class = PrdcSettings
    settings: PrdcSettings

    @property
    def min_pictures(self) -> int:
        return self.settings.neighbours + 1

    def compare(
        self, reference: Reference | Statistics, pictures: Sequence[Picture], features: Tensor
    ) -> dict[str, float]:
        shares = prdc(self.all_features(reference).features, features, k=self.settings.neighbours)
        return {
            "precision": shares.precision,
            "recall": shares.recall,
            "density": shares.density,
            "coverage": shares.coverage,
        }
