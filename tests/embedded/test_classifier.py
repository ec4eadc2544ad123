"""The classifier that ships: what it reads, and that a picture is judged by itself."""

import pytest
import torch
from torch import Tensor

from fewstep.embedded.digits.classifier import DigitClassifier
from fewstep.embedded.digits.task import Digits


@pytest.fixture(scope="module")
def shipped() -> DigitClassifier:
    return Digits().load_judge()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_match_needs_both_digit_and_colour(shipped: DigitClassifier, pixels: Tensor) -> None:
    predictions = shipped.predict(pixels[:4])
    assert not predictions.matches(predictions.digits, (predictions.colours + 1) % 7).any()


def test_features_of_a_picture_do_not_depend_on_its_batch(shipped: DigitClassifier, pixels: Tensor) -> None:
    together = shipped.predict(pixels[:8]).features
    alone = shipped.predict(pixels[:8], batch=1).features
    # other batch sizes take other convolution kernels, which round differently
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_float_pixels_are_refused(shipped: DigitClassifier) -> None:
    with pytest.raises(TypeError, match=r"expected uint8 \(n, 3, 32, 32\), got torch.float32"):
        shipped.features(torch.zeros(1, 3, 32, 32))
