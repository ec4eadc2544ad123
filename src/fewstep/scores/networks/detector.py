"""Objects in a picture: Mask2Former's instances, with boxes and masks at the picture's own size."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.reading import build_network
from fewstep.scores.networks.network import Network
from fewstep.scores.networks.preprocessing import IMAGENET, normalised, unit_pixels

_MAX_INSTANCES = 100
_SHORTER_SIDE, _LONGER_SIDE, _MULTIPLE = 800, 1333, 32


# the 80 classes of COCO in its order; three have other names in the prompts than in COCO
_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CLASSES = tuple(_NAMES.split(","))


@dataclass(frozen=True)
class Detection:
    """One object found in a picture.

    Attributes:
        label: Number of its class.
        score: Confidence.
        box: Left, top, right and bottom edge in pixels.
        mask: Which pixels are the object's, as large as the picture.
    """

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: Tensor


class Detector(Network):
    """Finds instances of the 80 classes of COCO."""

    def build(self) -> nn.Module:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

        config = Mask2FormerConfig.from_dict(self.config())
        if config.num_labels != len(CLASSES):
            raise CheckpointError(
                f"{self.checkpoint.name} tells {config.num_labels} classes apart, and geneval needs the "
                f"{len(CLASSES)} of COCO's instances. Give facebook/mask2former-swin-small-coco-instance."
            )
        return build_network(self.checkpoint, Mask2FormerForUniversalSegmentation, config)

    @torch.no_grad()
    def find(self, image: Image.Image) -> list[Detection]:
        """Every instance with a mask, however unsure.

        Raises:
            ValueError: The network's numbers are not finite: it would find nothing, which means nothing.
        """
        pixels = _resized(image)
        rows, columns = pixels.shape[1:]
        shown = _padded(pixels)
        seen = self.network(pixel_values=shown[None].to(self.device))
        if not bool(seen.class_queries_logits.isfinite().all() and seen.masks_queries_logits.isfinite().all()):
            raise ValueError("the detector gives numbers that are not finite")
        logits = functional.interpolate(
            seen.masks_queries_logits, shown.shape[1:], mode="bilinear", align_corners=False
        )
        # drop the padding before going back to the picture's size
        size = (image.height, image.width)
        masks = functional.interpolate(logits[..., :rows, :columns], size, mode="bilinear", align_corners=False)
        return instances(seen.class_queries_logits[0].float(), masks[0].float())


def _resized(image: Image.Image) -> Tensor:
    """Shorter side to 800 pixels unless the longer one passed 1333; ImageNet's mean and deviation."""
    scale = min(_SHORTER_SIDE / min(image.size), _LONGER_SIDE / max(image.size))
    width, height = (int(side * scale + 0.5) for side in image.size)
    return normalised(unit_pixels(image.resize((width, height), Image.Resampling.BILINEAR)), IMAGENET)


def _padded(pixels: Tensor) -> Tensor:
    """Zeros on the right and below, up to multiples of 32, as the network was trained."""
    rows, columns = pixels.shape[1:]
    return functional.pad(pixels, (0, -columns % _MULTIPLE, 0, -rows % _MULTIPLE))


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
    scores, places = probabilities.flatten().topk(min(_MAX_INSTANCES, probabilities.numel()))
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
