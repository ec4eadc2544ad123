"""What turns a picture into features, for the metrics that compare sets of pictures."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fewstep.errors import ConfigError
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.networks import inception
from fewstep.scores.networks.preprocessing import CLIP_MEAN, CLIP_STD

ExtractorName = Literal["inception", "inception-torch", "inception-tf1", "clip", "dinov2", "digits"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2_SIZE = 224
CONFIG = "config.json"
INCEPTION_FILES = (
    "fid_inception.safetensors",
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
)


@dataclass(frozen=True)
class ExtractorCard:
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


class Extractor(ABC):
    """Pictures to feature vectors; holds no weights until :meth:`load`.

    Args:
        checkpoint: Where the weights are; None for the extractor inside the package.
    """

    card: ClassVar[ExtractorCard]

    def __init__(self, checkpoint: Source | None) -> None:
        self._checkpoint = checkpoint
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")

    @property
    def checkpoint(self) -> Source:
        """Where the weights are."""
        assert self._checkpoint is not None, f"the extractor {self.card.name} has no checkpoint"
        return self._checkpoint

    @property
    def key(self) -> str:
        """Names the features: two extractors of one key give the same ones, and another preprocessing another key."""
        name = f"{self.card.name} ({self.card.preprocessing})"
        if self._checkpoint is None:
            return name
        revision = f"@{self._checkpoint.revision}" if self._checkpoint.revision else ""
        return f"{name}:{self._checkpoint.name}{revision}{_stamp(self._checkpoint)}"

    @property
    def network(self) -> Any:
        """The network; only between :meth:`load` and :meth:`unload`."""
        assert self._network is not None, f"the extractor {self.card.name} is not loaded"
        return self._network

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._network is not None

    @abstractmethod
    def check(self) -> None:
        """Find out, without loading weights, whether the checkpoint is there.

        Raises:
            ConfigError: It is not; the message has the command that fixes it.
        """

    @abstractmethod
    def read(self) -> StoredNetwork:
        """The checkpoint by the network's own names."""

    def load(self, device: torch.device) -> None:
        """Bring the network to ``device``."""
        self._network = self._build().to(device).eval().requires_grad_(False)
        self._device = device

    def unload(self) -> None:
        """Drop the network."""
        self._network = None

    @abstractmethod
    def _build(self) -> nn.Module:
        """The network with its weights."""

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
        return self.embed(torch.stack(prepared).to(self._device)).float().cpu()


class InceptionExtractor(Extractor):
    """The Inception network of FID, with clean-fid's resize."""

    card = ExtractorCard(
        name="inception",
        source="nikhilr01/sen-bridge-weights",
        preprocessing="bicubic with antialiasing to 299x299 in floating point (clean-fid), (x - 128) / 128",
        licence="Apache-2.0 (the TensorFlow model of 2015-12-05)",
    )

    def check(self) -> None:
        check_source(self.checkpoint, weights=INCEPTION_FILES)

    def read(self) -> StoredNetwork:
        tensors = inception.own_names(read_tensors(self.checkpoint, weights=INCEPTION_FILES))
        return StoredNetwork({"model_type": "fid-inception-2015-12-05"}, tensors)

    def _build(self) -> nn.Module:
        return inception.load_inception(self.read().tensors, source=self.checkpoint.name)

    def prepare(self, image: Image.Image) -> Tensor:
        return inception.resize_clean(image)

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network(batch)
        return features


class InceptionTorchExtractor(InceptionExtractor):
    """The same network with pytorch-fid's resize."""

    card = ExtractorCard(
        name="inception-torch",
        source=InceptionExtractor.card.source,
        preprocessing="bilinear without antialiasing to 299x299 (pytorch-fid), to [-1, 1]",
        licence=InceptionExtractor.card.licence,
    )

    def prepare(self, image: Image.Image) -> Tensor:
        return inception.resize_torch(image)


class InceptionTf1Extractor(InceptionExtractor):
    """The same network with the resize of TensorFlow 1 and torch-fidelity."""

    card = ExtractorCard(
        name="inception-tf1",
        source=InceptionExtractor.card.source,
        preprocessing="bilinear at pixel corners to 299x299 (TensorFlow 1, torch-fidelity), (x - 128) / 128",
        licence=InceptionExtractor.card.licence,
    )

    def prepare(self, image: Image.Image) -> Tensor:
        return inception.resize_tf1(image)


class ClipExtractor(Extractor):
    """CLIP's image embedding, normalised."""

    card = ExtractorCard(
        name="clip",
        source="openai/clip-vit-large-patch14-336",
        preprocessing=(
            "central square cut out, bicubic on bytes to the network's size (as the original of CMMD); CLIP's mean and "
            "deviation"
        ),
        licence="MIT",
    )

    def check(self) -> None:
        check_source(self.checkpoint, others=(CONFIG,))

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, keep=_is_of_the_picture_tower)
        config = read_json(fetch_file(self.checkpoint, CONFIG))
        if "vision_config" in config:
            # both towers are described; the width of the embedding stands beside them
            config = {**config["vision_config"], "projection_dim": config.get("projection_dim", 512)}
        return StoredNetwork({**config, "model_type": "clip_vision_model"}, tensors)

    def _build(self) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        stored = self.read()
        config = CLIPVisionConfig.from_dict(dict(stored.config))
        return build_network(self.checkpoint, CLIPVisionModelWithProjection, config, stored.tensors, torch.float32)

    def prepare(self, image: Image.Image) -> Tensor:
        # cut first, then resized: the other order of CLIP's own processor filters across the cut
        return squashed(central_square(image), self.network.config.image_size, mean=CLIP_MEAN, std=CLIP_STD)

    def embed(self, batch: Tensor) -> Tensor:
        return nn.functional.normalize(self.network(pixel_values=batch).image_embeds, dim=-1)


class Dinov2Extractor(Extractor):
    """DINOv2's class token after the last normalisation."""

    card = ExtractorCard(
        name="dinov2",
        source="facebook/dinov2-large",
        preprocessing=f"bicubic to {DINOV2_SIZE}x{DINOV2_SIZE}, no crop; ImageNet's mean and deviation",
        licence="Apache-2.0",
    )

    def check(self) -> None:
        check_source(self.checkpoint, others=(CONFIG,))

    def read(self) -> StoredNetwork:
        return StoredNetwork(read_json(fetch_file(self.checkpoint, CONFIG)), read_tensors(self.checkpoint))

    def _build(self) -> nn.Module:
        from transformers import Dinov2Config, Dinov2Model

        stored = self.read()
        config = Dinov2Config.from_dict(dict(stored.config))
        return build_network(self.checkpoint, Dinov2Model, config, stored.tensors, torch.float32)

    def prepare(self, image: Image.Image) -> Tensor:
        return squashed(image, DINOV2_SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network(pixel_values=batch).pooler_output
        return features


class DigitsExtractor(Extractor):
    """The classifier inside the package, for the embedded demo: needs no network and no checkpoint."""

    card = ExtractorCard(
        name="digits",
        source=None,
        preprocessing="none: pictures of 32x32",
        licence="Apache-2.0 (part of fewstep)",
    )

    def check(self) -> None:
        from fewstep.embedded.assets import CLASSIFIER_FILE, check_files

        check_files(under=CLASSIFIER_FILE)

    def read(self) -> StoredNetwork:
        raise ConfigError("The extractor digits ships inside the package; there is nothing to convert.")

    def _build(self) -> nn.Module:
        from fewstep.embedded.assets import load_classifier

        return load_classifier()

    def prepare(self, image: Image.Image) -> Tensor:
        from fewstep.embedded.classifier import IMAGE_SIZE

        if image.size != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, and the classifier of the demo reads only its "
                f"{IMAGE_SIZE} x {IMAGE_SIZE} digits"
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def embed(self, batch: Tensor) -> Tensor:
        features: Tensor = self.network.features(batch)
        return features


EXTRACTORS: dict[str, type[Extractor]] = {
    "inception": InceptionExtractor,
    "inception-torch": InceptionTorchExtractor,
    "inception-tf1": InceptionTf1Extractor,
    "clip": ClipExtractor,
    "dinov2": Dinov2Extractor,
    "digits": DigitsExtractor,
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
    kind = EXTRACTORS[name]
    chosen = source or kind.card.source
    if kind.card.source is None:
        if source is not None:
            raise ConfigError(
                f"{metric}.source is {source}, but the extractor {name} ships inside the package; leave it out."
            )
        return kind(None)
    assert chosen is not None
    return kind(Source(metric, chosen, revision=revision, allow_pickle=allow_pickle))


def _stamp(source: Source) -> str:
    """What changes when the files of a local checkpoint do; a repository is named by its revision."""
    local = source.local
    if local is None:
        return ""
    files = [local] if local.is_file() else sorted(path for path in local.iterdir() if path.is_file())
    told = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "#" + hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _is_of_the_picture_tower(name: str) -> bool:
    return name.startswith(("vision_model.", "visual_projection.")) and not name.endswith("position_ids")


def central_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of a picture; half a pixel is settled downwards."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def squashed(
    image: Image.Image, size: int, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """A picture resized to a square, bicubic with antialiasing and rounded to bytes, then normalised."""
    resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    return ((torch.from_numpy(resized) - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)
