"""The training of the classifier: what it learns, and that its file gives the same answers."""

from pathlib import Path

import pytest
import torch

from fewstep.embedded.digits.classifier import DigitClassifier, read_classifier
from fewstep.testing.closeness import additions, assert_rounded_alike, assert_same_bits
from tools.embedded_teacher.classifier import save_classifier, train_classifier
from tools.embedded_teacher.pictures import BaseDigits, DigitImages, draw_pool


@pytest.fixture(scope="module")
def pool() -> DigitImages:
    """Ten random strokes, one per digit, in all colours."""
    images = (torch.rand(10, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    return draw_pool(BaseDigits(images, torch.arange(10)), num_per_digit=70, seed=1)


@pytest.fixture(scope="module")
def trained(pool: DigitImages) -> DigitClassifier:
    return train_classifier(
        pool, num_steps=80, batch=64, lr=3e-3, seed=0, report=lambda step, values: None
    ).requires_grad_(False)


def test_training_learns_digit_and_colour_together(trained: DigitClassifier, pool: DigitImages) -> None:
    predictions = trained.predict(pool.pixels)
    assert float(predictions.matches(pool.digits, pool.colours).float().mean()) > 0.9


def test_saved_weights_give_the_same_features(trained: DigitClassifier, pool: DigitImages, tmp_path: Path) -> None:
    save_classifier(trained, tmp_path / "classifier.safetensors")
    again = read_classifier(tmp_path / "classifier.safetensors")
    assert_same_bits(again.state_dict(), trained.state_dict())
    ours, theirs = (network.predict(pool.pixels[:32]).features for network in (again, trained))
    assert_rounded_alike(ours, theirs, terms=additions(trained))
