"""The detector reads back what its targets say, and learns them."""

import random

import pytest
import torch

from fewstep.embedded.scenes.detector import GRID, Maps, SceneDetector, read_maps
from fewstep.embedded.scenes.grammar import NOUNS, TINTS, draw_scene
from tools.scenes.detector_training import targets_of, train_detector
from tools.scenes.pictures import draw
from tools.scenes.spoiling import Spoiler
from tools.scenes.workshop import pictures, pixels_of


def test_maps_that_say_the_truth_are_read_as_it() -> None:
    rng = random.Random(0)
    drawn = [draw(draw_scene(rng), rng, Spoiler(rng)) for _ in range(200)]
    targets = targets_of(drawn)
    there = targets["centre"]
    maps = Maps(
        centre=torch.where(there, 5.0, -5.0),
        clear=torch.where(targets["clear"] == 1, 5.0, -5.0),
        murky=torch.where(targets["murky"] == 1, 5.0, -5.0),
        noun=torch.nn.functional.one_hot(targets["noun"].clamp(min=0), len(NOUNS)).permute(0, 3, 1, 2).float(),
        tint=torch.nn.functional.one_hot(targets["tint"].clamp(min=0), 1 + len(TINTS)).permute(0, 3, 1, 2).float(),
        offset=targets["offset"],
        background=torch.nn.functional.one_hot(targets["background"], 6).float(),
        style=torch.nn.functional.one_hot(targets["style"], 2).float(),
        features=torch.zeros(200, 128),
    )
    for picture, seen in zip(drawn, read_maps(maps), strict=True):
        # of what is not clear it is not told what it is
        found = sorted((round(one.x, 3), round(one.y, 3), one.clear) for one in seen.objects)
        assert found == sorted((*one.centre, one.clear) for one in picture.objects)
        named = sorted((one.noun, one.tint or "") for one in seen.objects if one.clear)
        assert named == sorted((one.noun, one.tint or "") for one in picture.objects if one.clear)
        assert (seen.background, seen.style) == (picture.background, picture.style)
        assert seen.murky == sum(picture.ground.values())


def test_a_detector_learns() -> None:
    rng, losses = random.Random(1), []

    def batch(step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
        drawn = pictures(16, rng)
        return pixels_of(drawn), targets_of(drawn), 8

    def report(step: int, values: dict[str, float]) -> None:
        losses.append(values["loss"])

    detector = train_detector(batch, num_steps=51, lr=4e-3, seed=0, report=report)
    assert losses[1] < 0.8 * losses[0]
    seen, features = detector.see(batch(0)[0])
    assert len(seen) == 16 and features.shape == (16, 128) and bool(features.isfinite().all())


def test_pictures_of_another_size_or_type_are_refused() -> None:
    detector = SceneDetector()
    for pixels in (torch.zeros(1, 3, 48, 48), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)):
        with pytest.raises(TypeError, match="expected uint8"):
            detector(pixels)
    assert GRID == 12
