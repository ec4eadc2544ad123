"""A metric that is the cosine of a picture's and a prompt's CLIP vectors, times or plus whatever the metric says."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor

from fewstep.bounds import Place
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.metric import Finding, Metric, MetricSettings, Picture, as_findings
from fewstep.scores.networks.clip import Clip
from fewstep.scores.networks.preprocessing import Pixels


class TokenizerSettings(MetricSettings):
    """A scorer whose tokenizer may be in another repository; one beside the weights goes first."""

    tokenizer: Place = Field(description="hub id or local folder that has the tokenizer.json")


class ClipMetric(Metric):
    """Scores from one CLIP; a subclass says how pictures are prepared and what becomes of the cosine."""

    settings_class: ClassVar[type[TokenizerSettings]]
    settings: TokenizerSettings
    network_class: ClassVar[type[Clip]] = Clip

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        tokenizer = Source(self.card.name, self.settings.tokenizer, setting="tokenizer")
        self.clip = self.network_class(self.checkpoint, tokenizer)
        self.networks = (self.clip,)

    @abstractmethod
    def prepared(self, image: Image.Image, size: int) -> Pixels:
        """A picture as a square of ``size`` in [0, 1], before CLIP's mean and deviation."""

    def value(self, cosine: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The score of a cosine; the cosine itself unless a metric says otherwise."""
        return cosine

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        seen = self.clip.of_pictures([self.prepared(image, self.clip.image_size) for image in images])
        read = self.clip.of_texts([picture.item.text for picture in pictures])
        return as_findings(self.value((seen * read).sum(-1)))
