"""The colour of an object, told by CLIP from a crop on grey."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fewstep.scores.checkpoints.reading import build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.metrics.clip import without_positions
from fewstep.scores.metrics.geneval_rules import COLOURS, Detection
from fewstep.scores.metrics.learned_scorer import CONFIG_FILE
from fewstep.scores.networks.preprocessing import cropped_square, normalised
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE, PromptRows

BACKGROUND = (153, 153, 153)
PHRASES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")


class ColourCheck:
    """Names one of ten colours for each object; holds no weights until :meth:`load`."""

    def __init__(self, checkpoint: Source) -> None:
        self.checkpoint = checkpoint
        self._network: Any = None
        self._tokens: PromptRows | None = None
        self._device = torch.device("cpu")
        self._directions: dict[str, Tensor] = {}

    def check(self) -> None:
        """Find out, without loading weights, whether the checkpoint is there."""
        check_source(self.checkpoint, others=(CONFIG_FILE, TOKENIZER_FILE))

    def load(self, device: torch.device) -> None:
        """Bring the network to ``device``."""
        from transformers import CLIPConfig, CLIPModel

        config = CLIPConfig.from_dict(read_json(fetch_file(self.checkpoint, CONFIG_FILE)))
        tensors = without_positions(read_tensors(self.checkpoint))
        self._network = build_network(self.checkpoint, CLIPModel, config, tensors, torch.float32).to(device)
        tokenizer = fetch_file(self.checkpoint, TOKENIZER_FILE)
        self._tokens = PromptRows(tokenizer, config.text_config.max_position_embeddings, fill_with_end=True)
        self._device = device

    def unload(self) -> None:
        """Drop the network."""
        self._network = self._tokens = None
        self._directions = {}

    @torch.inference_mode()
    def colours(self, image: Image.Image, name: str, objects: Sequence[Detection]) -> list[str]:
        """The colour of each object of one class.

        Raises:
            ValueError: The network's numbers are not finite.
        """
        size = self._network.config.vision_config.image_size
        crops = [cropped_square(crop_on_grey(image, one), size, centring="even") for one in objects]
        pixels = torch.stack([normalised(crop) for crop in crops]).to(self._device)
        seen = normalize(self._network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        cosines = seen @ self._colour_directions(name).mT
        if not bool(cosines.isfinite().all()):
            raise ValueError("the CLIP that tells colours gives numbers that are not finite")
        return [COLOURS[index] for index in cosines.argmax(1).tolist()]

    def _colour_directions(self, name: str) -> Tensor:
        """One direction per colour: the mean of its phrases' normalised vectors, normalised again."""
        if name not in self._directions:
            assert self._tokens is not None, "load() comes before colours()"
            texts = [phrase.format(colour=colour, name=name) for colour in COLOURS for phrase in PHRASES]
            ids, mask = self._tokens.rows(texts)
            read = self._network.get_text_features(
                ids.to(self._device), attention_mask=mask.to(self._device)
            ).pooler_output
            means = normalize(read, dim=-1).reshape(len(COLOURS), len(PHRASES), -1).mean(1)
            self._directions[name] = normalize(means, dim=-1)
        return self._directions[name]


def crop_on_grey(image: Image.Image, one: Detection) -> Image.Image:
    """The object's box, with everything that is not the object in grey."""
    mask = Image.fromarray(one.mask.numpy().astype(np.uint8) * 255)
    grey = Image.new("RGB", image.size, BACKGROUND)
    left, top, right, bottom = (round(edge) for edge in one.box)
    return Image.composite(image, grey, mask).crop((left, top, right, bottom))
