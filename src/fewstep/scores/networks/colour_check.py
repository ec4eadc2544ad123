"""The colour of an object, told by CLIP from a crop on grey."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewstep.scores.networks.clip import Clip
from fewstep.scores.networks.detector import Detection
from fewstep.scores.networks.preprocessing import cropped_square

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
_BACKGROUND = (153, 153, 153)
_PHRASES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")


class ColourCheck(Clip):
    """Names one of ten colours for each object."""

    def build(self) -> nn.Module:
        self._directions: dict[str, Tensor] = {}
        return super().build()

    def colours(self, image: Image.Image, name: str, objects: Sequence[Detection]) -> list[str]:
        """The colour of each object of one class.

        Raises:
            ValueError: The network's numbers are not finite.
        """
        crops = [cropped_square(crop_on_grey(image, one), self.image_size, centring="even") for one in objects]
        cosines = self.of_pictures(crops) @ self._colour_directions(name).mT
        if not bool(cosines.isfinite().all()):
            raise ValueError("the CLIP that tells colours gives numbers that are not finite")
        return [COLOURS[index] for index in cosines.argmax(1).tolist()]

    def _colour_directions(self, name: str) -> Tensor:
        """One direction per colour: the mean of its phrases' vectors, of length 1 again."""
        if name not in self._directions:
            read = self.of_texts([phrase.format(colour=colour, name=name) for colour in COLOURS for phrase in _PHRASES])
            self._directions[name] = normalize(read.reshape(len(COLOURS), len(_PHRASES), -1).mean(1), dim=-1)
        return self._directions[name]


def crop_on_grey(image: Image.Image, one: Detection) -> Image.Image:
    """The object's box, with everything that is not the object in grey."""
    mask = Image.fromarray(one.mask.numpy().astype(np.uint8) * 255)
    grey = Image.new("RGB", image.size, _BACKGROUND)
    left, top, right, bottom = (round(edge) for edge in one.box)
    return Image.composite(image, grey, mask).crop((left, top, right, bottom))
