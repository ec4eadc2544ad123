"""Every metric's card says what its number means; the page in docs is made from the cards."""

import json
from pathlib import Path

import pytest

from fewstep.scores import registry
from fewstep.scores.registry import metric_class, metric_names, page_of_cards

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.mark.parametrize("name", metric_names())
def test_a_card_says_everything(name: str) -> None:
    card = metric_class(name).card
    assert card.name == name
    texts = (card.title, card.formula, card.scale, card.preprocessing, card.licence, card.comparable)
    assert all(len(text) >= 3 for text in texts)


def test_the_page_of_the_metrics_is_what_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of_cards()


def test_the_page_names_the_originals_and_how_far_they_were() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| run against | pytorch-fid 0.3.0, extractor=inception-torch, two folders: " in page
    measured = json.loads((Path(registry.__file__).with_name("originals.json")).read_text(encoding="utf-8"))
    assert measured.keys() <= set(metric_names())
    assert all(one["difference"] in page for found in measured.values() for one in found)
