"""Inception Score against values worked by hand."""

from pathlib import Path

import pytest
import torch

from fewstep.errors import CheckpointError
from fewstep.scores.metric import Finding, Picture, PromptItem
from fewstep.scores.networks.inception import Inception, load_inception
from fewstep.scores.statistics.diversity import inception_score
from tests.scores.tiny_pictures import metric_of

SURE = 1e3 * torch.eye(6)


def test_pictures_of_as_many_classes_as_pictures_score_their_number() -> None:
    assert inception_score(SURE, splits=1) == pytest.approx(6)


def test_pictures_of_one_class_score_one() -> None:
    assert inception_score(SURE[:1].repeat(5, 1), splits=1) == pytest.approx(1)


def test_pictures_of_no_class_score_one() -> None:
    assert inception_score(torch.zeros(8, 10), splits=2) == pytest.approx(1)


def test_splits_are_scored_apart_and_averaged() -> None:
    rows = torch.cat([SURE[:2], SURE[:1], SURE[:1]])
    assert inception_score(rows, splits=2) == pytest.approx((2 + 1) / 2)


def test_the_score_is_that_of_its_formula() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    shares = logits.double().softmax(1)
    expected = (shares * (shares / shares.mean(0)).log()).sum(1).mean().exp()
    assert inception_score(logits, splits=1) == pytest.approx(float(expected))


def test_the_order_of_the_pictures_does_not_matter() -> None:
    metric = metric_of("inception_score", splits=3)
    pictures = [Picture(Path(f"{i}.png"), PromptItem(f"p{i}", ""), seed=0) for i in range(12)]
    findings = [Finding(features=row) for row in torch.randn(12, 5, generator=torch.Generator().manual_seed(1))]
    assert metric.conclude(pictures, findings) == metric.conclude(pictures[::-1], findings[::-1])


def test_a_checkpoint_without_its_classifier_is_refused() -> None:
    with torch.device("meta"):
        tensors = {name: value for name, value in Inception().state_dict().items() if not name.startswith("fc.")}
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, .* the first is fc\.weight"):
        load_inception(tensors, source="test", with_classes=True)
