"""The demo's classifier: what it reads, what it learns, and that its file gives the same answers."""

from pathlib import Path

import pytest
import torch

from fewstep.embedded import classifier
from fewstep.embedded.classifier import DigitClassifier
from fewstep.embedded.digits import BaseDigits, DigitImages, draw_pool
from tests.closeness import additions, assert_rounded_alike, assert_same_bits


@pytest.fixture(scope="module")
def pool() -> DigitImages:
    """Ten random strokes, one per digit, in all colours."""
    images = (torch.rand(10, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    return draw_pool(BaseDigits(images, torch.arange(10)), num_per_digit=70, seed=1)


@pytest.fixture(scope="module")
def trained(pool: DigitImages) -> DigitClassifier:
    return classifier.train_classifier(
        pool, num_steps=80, batch=64, lr=3e-3, seed=0, report=lambda step, values: None
    ).requires_grad_(False)


def test_training_learns_digit_and_colour_together(trained: DigitClassifier, pool: DigitImages) -> None:
    predictions = trained.predict(pool.pixels)
    assert float(predictions.matches(pool.digits, pool.colours).float().mean()) > 0.9


def test_a_match_needs_both_digit_and_colour(trained: DigitClassifier, pool: DigitImages) -> None:
    predictions = trained.predict(pool.pixels[:4])
    assert not predictions.matches(predictions.digits, (predictions.colours + 1) % 7).any()


def test_saved_weights_give_the_same_features(trained: DigitClassifier, pool: DigitImages, tmp_path: Path) -> None:
    classifier.save_classifier(trained, tmp_path / "classifier.safetensors")
    again = classifier.read_classifier(tmp_path / "classifier.safetensors")
    assert_same_bits(again.state_dict(), trained.state_dict())
    ours, theirs = (network.predict(pool.pixels[:32]).features for network in (again, trained))
    assert_rounded_alike(ours, theirs, terms=additions(trained))


def test_features_of_a_picture_do_not_depend_on_its_batch(trained: DigitClassifier, pool: DigitImages) -> None:
    together = trained.predict(pool.pixels[:8]).features
    alone = trained.predict(pool.pixels[:8], batch=1).features
    # other batch sizes take other convolution kernels, which round differently
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_float_pixels_are_refused(trained: DigitClassifier) -> None:
    with pytest.raises(TypeError, match=r"expected uint8 \(n, 3, 32, 32\), got torch.float32"):
        trained.features(torch.zeros(1, 3, 32, 32))
