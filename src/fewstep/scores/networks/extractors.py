"""What turns a picture into features, for the metrics that compare sets of pictures."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fewstep.embedded.task import EmbeddedTask
from fewstep.embedded.tasks import TASKS
from fewstep.errors import ConfigError
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, read_tensors
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.networks import inception
from fewstep.scores.networks.network import Network
from fewstep.scores.networks.preprocessing import IMAGENET, squashed

ExtractorName = Literal["inception", "inception-torch", "inception-tf1", "clip", "dinov2", "digits", "scenes"]
_DINOV2_SIZE = 224
# what the names of a CLIP's weights begin with beside its vision tower
NOT_VISION = ("text_model.", "text_projection.", "logit_scale")


@dataclass(frozen=True)
class _ExtractorCard:
    """What a feature extractor is.

    Attributes:
        name: As given in a metric's setting ``extractor``.
        source: Default checkpoint; None where it ships inside the package.
        preprocessing: What happens to a picture.
        licence: Of the checkpoint.
    """

    name: str
    source: str | None
    preprocessing: str
    licence: str


INCEPTION = _ExtractorCard(
    name="inception",
    source="nikhilr01/sen-bridge-weights",
    preprocessing="bicubic with antialiasing to 299x299 in floats, cut off at 0 and 255 (clean-fid), (x - 128) / 128",
    licence="Apache-2.0 (the TensorFlow model of 2015-12-05)",
)
_INCEPTION_TORCH = replace(
    INCEPTION,
    name="inception-torch",
    preprocessing="bilinear without antialiasing to 299x299 (pytorch-fid), to [-1, 1]",
)
_INCEPTION_TF1 = replace(
    INCEPTION,
    name="inception-tf1",
    preprocessing="bilinear at pixel corners to 299x299 (TensorFlow 1, torch-fidelity), (x - 128) / 128",
)
CLIP = _ExtractorCard(
    name="clip",
    source="openai/clip-vit-large-patch14-336",
    preprocessing=(
        "central square cut out, bicubic on bytes to the network's size (as the original of CMMD); CLIP's mean and "
        "deviation"
    ),
    licence="MIT",
)
DINOV2 = _ExtractorCard(
    name="dinov2",
    source="facebook/dinov2-large",
    preprocessing=f"bicubic to {_DINOV2_SIZE}x{_DINOV2_SIZE}, no crop; ImageNet's mean and deviation",
    licence="Apache-2.0",
)
DIGITS = _ExtractorCard(
    name="digits",
    source=None,
    preprocessing="none: pictures of 32x32",
    licence="Apache-2.0 (part of fewstep)",
)
SCENES = replace(DIGITS, name="scenes", preprocessing="none: pictures of 48x48")


class Extractor(Network):
    """Pictures to feature vectors.

    Args:
        card: What it is.
        checkpoint: Where the weights are; None for the extractor inside the package.
    """

    def __init__(self, card: _ExtractorCard, checkpoint: Source | None) -> None:
        super().__init__(checkpoint)
        self.card = card

    @property
    def key(self) -> str:
        """Names the features: two extractors of one key give the same ones, and another preprocessing another key."""
        name = f"{self.card.name} ({self.card.preprocessing})"
        if self._checkpoint is None:
            return name
        revision = f"@{self._checkpoint.revision}" if self._checkpoint.revision else ""
        return f"{name}:{self._checkpoint.name}{revision}{_stamp(self._checkpoint)}"

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """Turn one RGB picture into the network's input.

        Raises:
            ValueError: The picture cannot be read by this network; the message says why.
        """

    @abstractmethod
    def embed(self, batch: Tensor) -> Tensor:
        """Features of prepared pictures."""

    @torch.no_grad()
    def features(self, prepared: list[Tensor]) -> Tensor:
        """Features of prepared pictures, float32 on the CPU, one row each."""
        return self.embed(torch.stack(prepared).to(self.device)).float().cpu()


class _InceptionExtractor(Extractor):
    """The Inception network of FID; its card says with whose resize."""

    weights = (
        "fid_inception.safetensors",
        "pt_inception-2015-12-05-6726825d.pth",
        "weights-inception-2015-12-05-6726825d.pth",
    )
    files = ()

    def read(self) -> StoredNetwork:
        tensors = inception.own_names(read_tensors(self.checkpoint, weights=self.weights))
        return StoredNetwork({"model_type": "fid-inception-2015-12-05"}, tensors)

    def build(self) -> nn.Module:
        return inception.load_inception(self.read().tensors, source=self.checkpoint.name)

    def prepare(self, image: Image.Image) -> Tensor:
        return inception.RESIZES[self.card.name](image)

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network(batch)
        return features


class ClipExtractor(Extractor):
    """CLIP's image embedding, normalised."""

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, keep=lambda name: not name.startswith(NOT_VISION))
        return StoredNetwork(vision_config(self.config()).to_dict(), tensors)

    def build(self) -> nn.Module:
        from transformers import CLIPVisionModelWithProjection

        config = vision_config(self.config())
        return build_network(self.checkpoint, CLIPVisionModelWithProjection, config, others=NOT_VISION)

    def prepare(self, image: Image.Image) -> Tensor:
        # cut first, then resized: the other order of CLIP's own processor filters across the cut
        return squashed(_central_square(image), self.network.config.image_size)

    def embed(self, batch: Tensor) -> Tensor:
        return nn.functional.normalize(self.network(pixel_values=batch).image_embeds, dim=-1)


class _Dinov2Extractor(Extractor):
    """DINOv2's class token after the last normalisation."""

    def build(self) -> nn.Module:
        from transformers import Dinov2Config, Dinov2Model

        return build_network(self.checkpoint, Dinov2Model, Dinov2Config.from_dict(self.config()))

    def prepare(self, image: Image.Image) -> Tensor:
        return squashed(image, _DINOV2_SIZE, IMAGENET)

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network(pixel_values=batch).pooler_output
        return features


class EmbeddedExtractor(Extractor):
    """The judge of an embedded task, which has the card's name: needs no network and no checkpoint."""

    @property
    def task(self) -> EmbeddedTask[Any]:
        """Whose judge it is."""
        return TASKS[self.card.name]

    def check(self) -> None:
        self.task.check_judge()

    def read(self) -> StoredNetwork:
        raise ConfigError(f"The extractor {self.card.name} ships inside the package; there is nothing to convert.")

    def build(self) -> nn.Module:
        judge: nn.Module = self.task.load_judge()
        return judge

    def prepare(self, image: Image.Image) -> Tensor:
        size = self.task.image_size
        if image.size != (size, size):
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, and {self.card.name} reads only its own pictures of "
                f"{size} x {size}"
            )
        # one layout in memory whatever the pictures came from: kernels of another one round differently
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network.features(batch)
        return features


_EXTRACTORS: dict[str, tuple[type[Extractor], _ExtractorCard]] = {
    card.name: (extractor, card)
    for extractor, card in (
        (_InceptionExtractor, INCEPTION),
        (_InceptionExtractor, _INCEPTION_TORCH),
        (_InceptionExtractor, _INCEPTION_TF1),
        (ClipExtractor, CLIP),
        (_Dinov2Extractor, DINOV2),
        (EmbeddedExtractor, DIGITS),
        (EmbeddedExtractor, SCENES),
    )
}


def create_extractor(
    name: ExtractorName, *, metric: str, source: str | None, revision: str | None, allow_pickle: bool
) -> Extractor:
    """Make an extractor; nothing is loaded.

    Args:
        name: Which one.
        metric: Whose settings these are, for messages.
        source: Its checkpoint; None is the card's.
        revision: Of a repository.
        allow_pickle: Whether a pickled checkpoint may be read.

    Raises:
        ConfigError: A checkpoint is given for the extractor inside the package.
    """
    kind, card = _EXTRACTORS[name]
    chosen = source or card.source
    if card.source is None:
        if source is not None:
            raise ConfigError(
                f"{metric}.source is {source}, but the extractor {name} ships inside the package; leave it out."
            )
        return kind(card, None)
    assert chosen is not None
    return kind(card, Source(metric, chosen, revision=revision, allow_pickle=allow_pickle))


def _stamp(source: Source) -> str:
    """What changes when the files of a local checkpoint do; a repository is named by its revision."""
    local = source.local
    if local is None:
        return ""
    files = [local] if local.is_file() else sorted(path for path in local.iterdir() if path.is_file())
    told = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "#" + hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def vision_config(config: Mapping[str, Any]) -> Any:
    """The configuration of a CLIP's vision tower, from that of a whole CLIP or of the tower itself."""
    from transformers import CLIPConfig, CLIPVisionConfig

    if "vision_config" not in config:
        return CLIPVisionConfig.from_dict(dict(config))
    whole = CLIPConfig.from_dict(dict(config))
    # the width of the embedding stands beside the towers
    whole.vision_config.projection_dim = whole.projection_dim
    return whole.vision_config


def _central_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of a picture; half a pixel is settled downwards."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))
