"""What all scorers that are a trained network have in common: read, build, score, drop."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fewstep.scores.checkpoints.reading import Convertible, StoredNetwork
from fewstep.scores.checkpoints.source import Source, has_file
from fewstep.scores.metric import Finding, Metric, Picture

CONFIG_FILE = "config.json"


class LearnedScorer(Metric, Convertible):
    """A scorer with one network; a subclass reads its checkpoint, builds it and runs it."""

    _network: Any = None

    @abstractmethod
    def build(self, stored: StoredNetwork) -> nn.Module:
        """The network, in eval mode on the CPU."""

    @abstractmethod
    def run(self, network: Any, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> Float[Tensor, "b"]:
        """The scores of some pictures, which were read as ``images``."""

    def load(self, device: torch.device) -> None:
        self._network = self.build(self.read()).to(device)

    def unload(self) -> None:
        self._network = None

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        assert self._network is not None, "load() comes before examine()"
        scores = self.run(self._network, pictures, images)
        return [Finding(score) for score in scores.double().cpu().tolist()]

    @property
    def checkpoint(self) -> Source:
        """Where the weights are."""
        assert self.source is not None
        return Source(self.card.name, self.source, self.settings.revision, self.settings.allow_pickle)

    def beside(self, files: Sequence[str], otherwise: str, *, setting: str) -> Source:
        """Where ``files`` are: beside the weights if all are there, as in a converted folder, or the named place."""
        own = self.checkpoint
        if otherwise == own.name or all(has_file(own, file) for file in files):
            return own
        return Source(self.card.name, otherwise, setting=setting)
