"""Metrics that compare the pictures of a whole set with real ones: fid, kid, kid_subsets, cmmd, prdc."""

import hashlib
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fewstep.bounds import Count
from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricCard, Picture
from fewstep.scores.metrics.feature_metric import ReferenceMetric, ReferenceSettings, prompt_numbers
from fewstep.scores.metrics.reference import Reference
from fewstep.scores.networks.extractors import CLIP, INCEPTION, ExtractorName
from fewstep.scores.statistics.frechet import frechet_distance, gaussian_distance
from fewstep.scores.statistics.kernel import kernel_distance, kernel_distance_of_subsets, mean_discrepancy
from fewstep.scores.statistics.prdc import prdc


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

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        reference = self.real(features)
        if isinstance(reference, Reference):
            return {self.card.name: frechet_distance(reference.features, features)}
        if len(features) < 2:
            raise ConfigError(f"{self.card.name} has {len(features)} picture; it needs at least two. Draw more.")
        drawn = features.double()
        distance = gaussian_distance(reference.mean, reference.covariance, drawn.mean(0), drawn.mT.cov())
        return {self.card.name: distance}


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
            "pictures, which estimates the same number with a larger variance; kid_subsets does so"
        ),
        source=INCEPTION.source,
    )

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        real = self.every_real(features)
        prompts = prompt_numbers(pictures)
        repeated = len(prompts) > 0 and int(torch.bincount(prompts).min()) >= 2
        distance = kernel_distance(
            real.features, features, real_strata=real.strata, generated_strata=prompts if repeated else None
        )
        return {self.card.name: distance}


class _KidSubsetsSettings(ReferenceSettings):
    """How many subsets of which size; a smaller set sets the size."""

    subsets: Count = Field(default=100, description="how many are averaged")
    subset_size: Count = Field(default=1000, description="pictures in each, at most the smaller set's")


class KidSubsetsMetric(ReferenceMetric):
    """Kernel Inception distance as its paper has it: the mean over random subsets."""

    card = MetricCard(
        name="kid_subsets",
        title="Kernel distance to real pictures, over subsets",
        formula=(
            "1000 times the mean over 100 random subsets of 1000 pictures of each set of the unbiased MMD^2 under "
            "k(a, b) = (a . b / d + 1)^3 (Binkowski 2018)"
        ),
        scale="times 1000; about 0 for equal laws, and may be slightly negative",
        higher_is_better=False,
        preprocessing="as fid",
        licence=INCEPTION.licence,
        comparable=(
            "with KID x 1000 of torch-fidelity, clean-fid and papers: the same estimate on other draws of subsets. kid "
            "is the same number without that noise, and right for several pictures of a prompt, which this one takes "
            "for independent. 100 subsets of 1000 take minutes on a CPU, and the interval twenty times that"
        ),
        source=INCEPTION.source,
    )
    settings_class = _KidSubsetsSettings
    settings: _KidSubsetsSettings

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        real = self.every_real(features).features
        size = min(self.settings.subset_size, len(real), len(features))
        # a picture's draws are its own: leaving others out for an interval leaves most subsets nearly as they were
        of_real = _draws([f"reference {row}" for row in range(len(real))], self.settings.subsets)
        of_drawn = _draws([f"{picture.item.id} {picture.seed}" for picture in pictures], self.settings.subsets)
        subsets = [(a.topk(size).indices, b.topk(size).indices) for a, b in zip(of_real, of_drawn, strict=True)]
        return {self.card.name: kernel_distance_of_subsets(real, features, subsets=subsets)}


def _draws(names: Sequence[str], count: int) -> Tensor:
    """Uniform numbers, a row per draw and a column per name; a column depends on its own name alone."""
    seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") for name in names]
    columns = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(columns, dim=1)


class _CmmdSettings(ReferenceSettings):
    """The extractor of the paper is CLIP."""

    extractor: ExtractorName = Field(default="clip", description="what turns a picture into features")


class CmmdMetric(ReferenceMetric):
    """CMMD (Jayasumana 2024)."""

    card = MetricCard(
        name="cmmd",
        title="Maximum mean discrepancy of CLIP embeddings",
        formula=(
            "1000 (mean k(r, r') + mean k(g, g') - 2 mean k(r, g)) with k(a, b) = exp(-|a - b|^2 / (2 * 10^2)), over "
            "all pairs including a picture with itself, on normalised CLIP embeddings"
        ),
        scale="0 is equal; about 0.1 to 2",
        higher_is_better=False,
        preprocessing=CLIP.preprocessing,
        licence=CLIP.licence,
        comparable=(
            "with published CMMD of ViT-L/14@336 on the same reference, pictures of other shapes included; not with "
            "ports that resize without antialiasing"
        ),
        source=CLIP.source,
    )
    settings_class = _CmmdSettings

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        return {self.card.name: mean_discrepancy(self.every_real(features).features, features)}


class _PrdcSettings(ReferenceSettings):
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
    settings_class = _PrdcSettings
    settings: _PrdcSettings

    @property
    def min_pictures(self) -> int:
        return self.settings.neighbours + 1

    def figures(self, pictures: Sequence[Picture], features: Tensor) -> dict[str, float]:
        shares = prdc(self.every_real(features).features, features, k=self.settings.neighbours)
        return {
            "precision": shares.precision,
            "recall": shares.recall,
            "density": shares.density,
            "coverage": shares.coverage,
        }
