"""Inception Score: are pictures of one class each, and of many classes together."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from fewstep.bounds import Count
from fewstep.scores.checkpoints.reading import StoredNetwork, read_tensors
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture
from fewstep.scores.networks import inception
from fewstep.scores.networks.extractors import INCEPTION
from fewstep.scores.networks.network import Network
from fewstep.scores.statistics.diversity import inception_score


class _InceptionScoreSettings(MetricSettings):
    """In how many parts the pictures are judged."""

    frames: Literal["middle"] = Field(default="middle", description="of a clip: middle")
    splits: Count = Field(default=10, description="parts whose scores are averaged")


class _Classes(Network):
    """The Inception network of FID up to its classifier."""

    weights = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
    files = ()

    def read(self) -> StoredNetwork:
        tensors = inception.own_names(read_tensors(self.checkpoint, weights=self.weights))
        return StoredNetwork({"model_type": "fid-inception-2015-12-05"}, tensors)

    def build(self) -> nn.Module:
        return inception.load_inception(self.read().tensors, source=self.checkpoint.name, with_classes=True)

    def logits(self, pictures: Tensor) -> Tensor:
        """Of each picture, a number per class; the original leaves the classifier's bias out, and so does this."""
        logits: Tensor = self.network(pictures) @ self.network.fc.weight.mT
        return logits


class InceptionScoreMetric(Metric):
    """Inception Score (Salimans et al. 2016)."""

    card = MetricCard(
        name="inception_score",
        title="Inception Score",
        formula=(
            "exp(mean KL(p(class | picture) | p(class))), the classifier's bias left out, mean over splits of the "
            "pictures; which split a picture is in follows from a hash of its prompt's id and its seed"
        ),
        scale="1 (all alike) to 1008; about 10 to 40 for pictures of text prompts",
        higher_is_better=True,
        preprocessing="bilinear at pixel corners to 299x299 (TensorFlow 1), (x - 128) / 128",
        licence=INCEPTION.licence,
        comparable=(
            "with Inception Scores of the network of 2015 at the same number of pictures and splits; it knows the "
            "classes of ImageNet only and no prompt, so it says little about text-to-image models. Its checkpoint must "
            "have the classifier (fc.weight): the files of torch-fidelity and pytorch-fid do"
        ),
        source=INCEPTION.source,
    )
    settings_class = _InceptionScoreSettings
    settings: _InceptionScoreSettings
    reads_prompts = False
    of_sets = True

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._classes = _Classes(self.checkpoint)
        self.networks = (self._classes,)

    @property
    def min_pictures(self) -> int:
        return 2 * self.settings.splits

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        inputs = torch.stack([inception.resize_tf1(image) for image in images])
        return [Finding(features=row) for row in self._classes.logits(inputs.to(self._classes.device)).float().cpu()]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = torch.stack([finding.features for finding in findings if finding.features is not None])
        order = sorted(range(len(pictures)), key=lambda number: _shuffled(pictures[number]))
        return {self.card.name: inception_score(rows[order], splits=self.settings.splits)}


def _shuffled(picture: Picture) -> bytes:
    """A place among the pictures that does not follow the prompts, and hardly changes when others are left out."""
    return hashlib.sha256(f"{picture.item.id} {picture.seed}".encode()).digest()
