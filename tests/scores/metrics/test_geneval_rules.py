"""GenEval's rules on objects that the tests place."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.scores.metric import PromptItem
from fewstep.scores.metrics.geneval_rules import (
    Verdict,
    check_facts,
    confident,
    judge,
    relations,
)
from fewstep.scores.networks.detector import CLASSES, Detection

Box = tuple[float, float, float, float]


def seen(name: str, score: float = 0.95, box: Box = (0, 0, 10, 10)) -> Detection:
    return Detection(CLASSES.index(name), score, box, torch.ones(1, 1, dtype=torch.bool))


def no_colours(name: str, objects: Sequence[Detection]) -> list[str]:
    raise AssertionError("no colour is asked for")


def verdict(facts: dict[str, Any], detections: Sequence[Detection], colours: Sequence[str] = ()) -> Verdict:
    def told(name: str, objects: Sequence[Detection]) -> list[str]:
        return list(colours)[: len(objects)]

    return judge(facts, confident(detections, tag=facts["tag"]), told if colours else no_colours)


def test_coco_has_eighty_classes_under_their_prompt_names() -> None:
    assert len(set(CLASSES)) == 80
    assert [CLASSES[i] for i in (0, 62, 64, 65, 66, 79)] == [
        *("person", "tv", "computer mouse", "tv remote", "computer keyboard", "toothbrush")
    ]


def test_an_object_counts_above_a_confidence_of_three_tenths() -> None:
    facts = {"tag": "single_object", "include": [{"class": "bench", "count": 1}]}
    assert verdict(facts, [seen("bench", 0.31)]).correct
    assert verdict(facts, [seen("bench", 0.3)]) == Verdict(False, ("1 bench expected, 0 found",))


def test_both_objects_have_to_be_there() -> None:
    facts = {"tag": "two_object", "include": [{"class": "bench", "count": 1}, {"class": "cat", "count": 1}]}
    assert verdict(facts, [seen("cat"), seen("bench")]).correct
    assert verdict(facts, [seen("cat"), seen("cat")]).reasons == ("1 bench expected, 0 found",)


COUNTING = {
    "tag": "counting",
    "include": [{"class": "cup", "count": 3}],
    "exclude": [{"class": "cup", "count": 4}],
}


@pytest.mark.parametrize(("number", "right"), [(2, False), (3, True), (4, False)])
def test_counting_asks_for_the_exact_number(number: int, right: bool) -> None:
    assert verdict(COUNTING, [seen("cup")] * number).correct is right


def test_counting_looks_only_at_objects_it_is_sure_of() -> None:
    assert verdict(COUNTING, [seen("cup", 0.91)] * 3 + [seen("cup", 0.89)]).correct


def test_no_more_than_sixteen_objects_of_a_class_are_looked_at() -> None:
    assert len(confident([seen("cup")] * 20, tag="colors")["cup"]) == 16


def test_the_colour_of_the_surest_object_decides() -> None:
    facts = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}]}
    asked: list[float] = []

    def told(name: str, objects: Sequence[Detection]) -> list[str]:
        asked.extend(one.score for one in objects)
        return ["red"]

    assert judge(facts, confident([seen("car", 0.5), seen("car", 0.9)], tag="colors"), told).correct
    assert asked == [0.9]


def test_another_colour_is_wrong_and_named() -> None:
    facts = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}]}
    assert verdict(facts, [seen("car")], ["blue"]) == Verdict(False, ("1 red car expected, found blue",))


def position(relation: str) -> dict[str, Any]:
    """A cat somewhere from a bench."""
    return {
        "tag": "position",
        "include": [{"class": "bench", "count": 1}, {"class": "cat", "count": 1, "position": [relation, 0]}],
    }


@pytest.mark.parametrize(
    ("box", "relation"),
    [
        ((0, 40, 10, 50), "left of"),
        ((90, 40, 99, 50), "right of"),
        ((45, 0, 55, 10), "above"),
        ((45, 90, 55, 99), "below"),
    ],
)
def test_a_box_lies_where_the_prompt_says(box: Box, relation: str) -> None:
    bench = seen("bench", box=(45, 45, 55, 55))
    others = {"left of", "right of", "above", "below"} - {relation}
    assert verdict(position(relation), [bench, seen("cat", box=box)]).correct
    assert not any(verdict(position(other), [bench, seen("cat", box=box)]).correct for other in others)


def test_a_position_beside_an_object_that_is_not_there_is_wrong() -> None:
    assert verdict(position("above"), [seen("cat")]).reasons == (
        "1 bench expected, 0 found",
        "nothing for cat to be above",
    )


def test_centres_close_for_their_sizes_have_no_relation() -> None:
    # the centres are 4 apart, a tenth of both widths together
    assert relations((0, 0, 20, 20), (4, 0, 24, 20)) == set()


def test_an_offset_shortened_by_the_sizes_decides_the_direction() -> None:
    # centres 10 right and 10 below, widths 40 and heights 4 together: 10 - 4 = 6 and 10 - 0.4 = 9.6 of a length of 14.1
    assert relations((10, 10, 30, 12), (0, 0, 20, 2)) == {"below"}


def test_a_diagonal_of_small_boxes_is_two_relations() -> None:
    assert relations((100, 100, 102, 102), (0, 0, 2, 2)) == {"right of", "below"}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "its tag is None"),
        ({"tag": "colors", "include": []}, "it names no object"),
        ({"tag": "colors", "include": [{"class": "unicorn", "count": 1}]}, "'unicorn' is not one of the 80 classes"),
        ({"tag": "colors", "include": [{"class": "cat"}]}, "does not say how many of 'cat'"),
        ({"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "teal"}]}, "'teal' is not one of red"),
    ],
)
def test_a_prompt_that_does_not_say_what_to_look_for_is_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"geneval cannot score the prompt p1: .*{message}.*prompt set geneval"):
        check_facts(PromptItem("p1", "a cat", facts))
