"""The cards of the learned scorers say what a reader must know before comparing numbers."""

import pytest

from fewstep.scores.registry import metric_class

SCORERS = ("imagereward", "clipscore", "pickscore", "hpsv2", "hpsv3", "aesthetic")


@pytest.mark.parametrize("name", SCORERS)
def test_the_name_on_the_card_is_the_name_that_is_typed(name: str) -> None:
    assert metric_class(name).card.name == name


@pytest.mark.parametrize("name", SCORERS)
def test_a_card_says_which_numbers_it_may_be_compared_with(name: str) -> None:
    assert metric_class(name).card.comparable.startswith("Comparable with ")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("imagereward", "RE-N-Y/ImageReward"),
        ("clipscore", "openai/clip-vit-large-patch14"),
        ("pickscore", "yuvalkirstain/PickScore_v1"),
        ("hpsv2", "RE-N-Y/hpsv21"),
        ("hpsv3", "MizzenAI/HPSv3"),
        ("aesthetic", "ttj/sac-logos-ava1-l14-linearMSE"),
    ],
)
def test_the_checkpoint_is_the_cards_unless_another_is_set(name: str, source: str) -> None:
    kind = metric_class(name)
    assert kind(kind.settings_class()).source == source
    assert kind(kind.settings_class(source="elsewhere")).source == "elsewhere"


@pytest.mark.parametrize("name", SCORERS)
def test_more_of_each_scorer_is_better(name: str) -> None:
    assert metric_class(name).card.higher_is_better
