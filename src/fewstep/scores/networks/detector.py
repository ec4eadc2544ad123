"""Objects in a picture: Mask2Former's instances, with boxes and masks at the picture's own size."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.metrics.geneval_rules import CLASSES, Detection
from fewstep.scores.networks.extractors import IMAGENET_MEAN, IMAGENET_STD

CONFIG = "config.json"
MAX_INSTANCES = 100
SHORTER_SIDE, LONGER_SIDE, MULTIPLE = 800, 1333, 32


class Detector:
    """Finds instances of the 80 classes of COCO; holds no weights until :meth:`load`."""

    def __init__(self, checkpoint: Source) -> None:
        self.checkpoint = checkpoint
        self._network: Any = None
        self._device = torch.device("cpu")

    def check(self) -> None:
        """Find out, without loading weights, whether the checkpoint is there."""
        check_source(self.checkpoint, others=(CONFIG,))

    def read(self) -> StoredNetwork:
        """The checkpoint by the network's own names."""
        return StoredNetwork(read_json(fetch_file(self.checkpoint, CONFIG)), read_tensors(self.checkpoint))

    def load(self, device: torch.device) -> None:
        """Bring the network to ``device``.

        Raises:
            CheckpointError: It does not tell the 80 classes of COCO apart.
        """
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

        stored = self.read()
        config = Mask2FormerConfig.from_dict(dict(stored.config))
        if config.num_labels != len(CLASSES):
            raise CheckpointError(
                f"{self.checkpoint.name} tells {config.num_labels} classes apart, and geneval needs the "
                f"{len(CLASSES)} of COCO's instances. Give facebook/mask2former-swin-small-coco-instance."
            )
        network = build_network(
            self.checkpoint, Mask2FormerForUniversalSegmentation, config, stored.tensors, torch.float32
        )
        self._network = network.to(device)
        self._device = device

    def unload(self) -> None:
        """Drop the network."""
        self._network = None

    @torch.inference_mode()
    def find(self, image: Image.Image) -> list[Detection]:
        """Every instance with a mask, however unsure.

        Raises:
            ValueError: The network's numbers are not finite: it would find nothing, which means nothing.
        """
        pixels = resized(image)
        rows, columns = pixels.shape[1:]
        shown = padded(pixels)
        seen = self._network(pixel_values=shown[None].to(self._device))
        if not bool(seen.class_queries_logits.isfinite().all() and seen.masks_queries_logits.isfinite().all()):
            raise ValueError("the detector gives numbers that are not finite")
        logits = functional.interpolate(
            seen.masks_queries_logits, shown.shape[1:], mode="bilinear", align_corners=False
        )
        # drop the padding before going back to the picture's size
        size = (image.height, image.width)
        masks = functional.interpolate(logits[..., :rows, :columns], size, mode="bilinear", align_corners=False)
        return instances(seen.class_queries_logits[0].float(), masks[0].float())


def resized(image: Image.Image) -> Tensor:
    """Shorter side to 800 pixels unless the longer one passed 1333; ImageNet's mean and deviation."""
    scale = min(SHORTER_SIDE / min(image.size), LONGER_SIDE / max(image.size))
    width, height = (int(side * scale + 0.5) for side in image.size)
    pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR))).float() / 255
    return ((pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).permute(2, 0, 1)


def padded(pixels: Tensor) -> Tensor:
    """Zeros on the right and below, up to multiples of 32, as the network was trained."""
    rows, columns = pixels.shape[1:]
    return functional.pad(pixels, (0, -columns % MULTIPLE, 0, -rows % MULTIPLE))


def instances(class_logits: Tensor, mask_logits: Tensor) -> list[Detection]:
    """Turn the queries' classes and masks into objects.

    A query may be several classes. An object's score is the probability of its class times the mean probability of
    the pixels inside its mask; a query without a pixel is nothing.

    Args:
        class_logits: One row per query, the last column is "nothing".
        mask_logits: One mask per query, as large as the picture.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    scores, places = probabilities.flatten().topk(min(MAX_INSTANCES, probabilities.numel()))
    found = []
    for score, place in zip(scores.tolist(), places.tolist(), strict=True):
        query, label = divmod(place, num_classes)
        mask = mask_logits[query] > 0
        if bool(mask.any()):
            certainty = float(mask_logits[query].sigmoid()[mask].mean())
            found.append(Detection(label, score * certainty, box_of(mask), mask.cpu()))
    return found


def box_of(mask: Tensor) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of the pixels of a mask."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
