"""The scorer's eye: which objects a picture of ``scenes`` shows, where, in which tint, and on which ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, STYLES, TINTS
from fewstep.embedded.scenes.task import Scenes
from fewstep.tensors import all_tensors

IMAGE_SIZE = Scenes.image_size
CELL = 4
GRID = IMAGE_SIZE // CELL
NUM_FEATURES = 128
THRESHOLD = 0.5


@dataclass(frozen=True)
class Found:
    """An object: its noun, its tint (``None``: as the emoji is drawn) and its centre in pixels.

    One that is faint, soft, doubled or mixed with another is not ``clear``.
    """

    noun: str
    tint: str | None
    x: float
    y: float
    clear: bool = True


@dataclass(frozen=True)
class Seen:
    """What is seen in a picture; ``murky`` cells of the ground hold neither a dot nor none."""

    objects: tuple[Found, ...]
    background: str
    style: str
    murky: int = 0


@dataclass(frozen=True)
class Maps:
    """Logits of cells: centre, clear, murky ``(n, 12, 12)``, noun ``(n, 40, 12, 12)``, tint ``(n, 5, 12, 12)``.

    ``offset`` is where the nearest centre lies, x and y in cells from the cell's middle, ``(n, 2, 12, 12)``. Distances
    between sets of pictures are measured in the 128 ``features``: the last hidden layer, averaged over the cells, as
    those of Inception are for FID.
    """

    centre: Tensor
    clear: Tensor
    murky: Tensor
    noun: Tensor
    tint: Tensor
    offset: Tensor
    background: Tensor
    style: Tensor
    features: Tensor


def _stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class SceneDetector(nn.Module):
    """A small convolutional network with cells of 4x4 pixels; it reads byte pixels, uint8 ``(n, 3, 48, 48)``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _stage(3, 32), _stage(32, 64, 2), _stage(64, 64), _stage(64, 128, 2), _stage(128, 128), _stage(128, 128)
        )
        self.sizes = (1, 1, 1, len(NOUNS), 1 + len(TINTS), 2)
        self.cells = nn.Sequential(_stage(128, NUM_FEATURES), nn.Conv2d(NUM_FEATURES, sum(self.sizes), 1))
        self.embed = nn.Linear(2 * 128, 128)
        self.whole = nn.Linear(128, len(BACKGROUNDS) + len(STYLES))

    def forward(self, pixels: Tensor) -> Maps:
        """Compute every logit of byte pixels."""
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise TypeError(f"expected uint8 (n, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), got {pixels.dtype} {pixels.shape}")
        return self.look(pixels.float() / 127.5 - 1)

    def look(self, values: Tensor) -> Maps:
        """Compute every logit of values in [-1, 1]."""
        body = self.body(values)
        hidden = self.cells[0](body)
        centre, clear, murky, noun, tint, offset = self.cells[1](hidden).split(self.sizes, dim=1)
        ground = self.embed(torch.cat([body.mean(dim=(2, 3)), body.amax(dim=(2, 3))], dim=1)).relu()
        background, style = self.whole(ground).split((len(BACKGROUNDS), len(STYLES)), dim=1)
        features = hidden.mean(dim=(2, 3))
        return Maps(centre[:, 0], clear[:, 0], murky[:, 0], noun, tint, offset, background, style, features)

    def features(self, pixels: Tensor) -> Tensor:
        """Compute the 128 features of byte pixels."""
        return self(pixels).features.float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def see(self, pixels: Tensor, *, batch: int = 256) -> tuple[list[Seen], Tensor]:
        """Tell what byte pixels show, and their features (float32, ``(n, 128)``)."""
        seen: list[Seen] = []
        features: list[Tensor] = []
        for part in torch.split(pixels, batch):
            maps = self(part)
            seen += read_maps(maps)
            features.append(maps.features.float())
        return seen, torch.cat(features)


def read_maps(maps: Maps) -> list[Seen]:
    """Take the cells that are more of a centre than their eight neighbours and than one half."""
    score = maps.centre.sigmoid()
    highest = functional.max_pool2d(score[:, None], 3, stride=1, padding=1)[:, 0]
    peaks = (score == highest) & (score > THRESHOLD)
    nouns, tints, clear = maps.noun.argmax(1), maps.tint.argmax(1), maps.clear.sigmoid() > THRESHOLD
    backgrounds, styles = maps.background.argmax(1).tolist(), maps.style.argmax(1).tolist()
    murky = (maps.murky.sigmoid() > THRESHOLD).sum((1, 2)).tolist()
    objects: list[list[Found]] = [[] for _ in backgrounds]
    for n, row, column in peaks.nonzero().tolist():
        tint = int(tints[n, row, column])
        dx, dy = maps.offset[n, :, row, column].tolist()
        objects[n].append(
            Found(
                NOUNS[int(nouns[n, row, column])],
                TINTS[tint - 1] if tint else None,
                CELL * (column + 0.5 + dx),
                CELL * (row + 0.5 + dy),
                bool(clear[n, row, column]),
            )
        )
    return [
        Seen(tuple(found), BACKGROUNDS[background], STYLES[style], cells)
        for found, background, style, cells in zip(objects, backgrounds, styles, murky, strict=True)
    ]


def read_detector(path: Path) -> SceneDetector:
    """Read the weights, ready to see."""
    detector = SceneDetector()
    detector.load_state_dict(all_tensors(path))
    return detector.eval().requires_grad_(False)
