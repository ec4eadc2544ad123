"""The rules of GenEval: which objects were found, and whether they are those that the prompt asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewstep.errors import ConfigError
from fewstep.scores.metric import PromptItem
from fewstep.scores.networks.colour_check import COLOURS
from fewstep.scores.networks.detector import CLASSES, Detection

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
_POSITION_THRESHOLD = 0.1
_MAX_OBJECTS = 16
_CONFIDENCE, _COUNTING_CONFIDENCE = 0.3, 0.9


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what the prompt asks for, and what is wrong."""

    correct: bool
    reasons: tuple[str, ...] = ()


_ColoursOf = Callable[[str, Sequence[Detection]], list[str]]
"""Tells the colour of each of some objects of one class."""


def confident(detections: Sequence[Detection], *, tag: str) -> dict[str, list[Detection]]:
    """The objects that count, by the name of their class, the surest first.

    Counting asks for more confidence, because every false object spoils the count.
    """
    threshold = _COUNTING_CONFIDENCE if tag == "counting" else _CONFIDENCE
    found: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda one: -one.score):
        same = found.setdefault(CLASSES[detection.label], [])
        if detection.score > threshold and len(same) < _MAX_OBJECTS:
            same.append(detection)
    return {name: same for name, same in found.items() if same}


def judge(facts: Mapping[str, Any], objects: Mapping[str, Sequence[Detection]], colours_of: _ColoursOf) -> Verdict:
    """Compare the objects of a picture with what its prompt asks for.

    Args:
        facts: ``include`` and ``exclude`` of the prompt.
        objects: What :func:`confident` found.
        colours_of: Tells colours; called only where the prompt names one.
    """
    reasons: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for wanted in facts.get("include", ()):
        found = list(objects.get(wanted["class"], ()))[: wanted["count"]]
        wrong = _what_is_wrong(wanted, found, matched, colours_of)
        reasons += wrong
        matched.append(None if wrong else found)
    for unwanted in facts.get("exclude", ()):
        number = len(objects.get(unwanted["class"], ()))
        if number >= unwanted["count"]:
            reasons.append(f"fewer than {unwanted['count']} {unwanted['class']} expected, {number} found")
    return Verdict(not reasons, tuple(reasons))


def _what_is_wrong(
    wanted: Mapping[str, Any],
    found: Sequence[Detection],
    matched: Sequence[Sequence[Detection] | None],
    colours_of: _ColoursOf,
) -> list[str]:
    name, count = wanted["class"], wanted["count"]
    if len(found) < count:
        return [f"{count} {name} expected, {len(found)} found"]
    if "color" in wanted:
        colours = colours_of(name, found)
        if colours.count(wanted["color"]) < count:
            return [f"{count} {wanted['color']} {name} expected, found {', '.join(colours)}"]
    if "position" not in wanted:
        return []
    relation, group = wanted["position"]
    targets = matched[group]
    if targets is None:
        return [f"nothing for {name} to be {relation}"]
    for one in found:
        for target in targets:
            if relation not in (seen := relations(one.box, target.box)):
                return [f"{name} expected {relation} its target, is {' and '.join(sorted(seen)) or 'nowhere clear'}"]
    return []


def relations(a: Sequence[float], b: Sequence[float]) -> set[str]:
    """Where box ``a`` lies seen from ``b``; nothing where their centres are close for their sizes.

    The offset of the centres is shortened by a tenth of both sizes, then a direction holds when it has more than half
    of the unshortened offset's length.
    """
    one, other = (torch.tensor(box, dtype=torch.float64).view(2, 2) for box in (a, b))
    offset = one.mean(0) - other.mean(0)
    sizes = (one[1] - one[0]).abs() + (other[1] - other[0]).abs()
    short = (offset.abs() - _POSITION_THRESHOLD * sizes).clamp(min=0) * offset.sign()
    if bool((short.abs() < 1e-3).all()):
        return set()
    x, y = (short / offset.norm()).tolist()
    found = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in found.items() if holds}


def check_facts(item: PromptItem) -> None:
    """Refuse a prompt that does not say what to look for.

    Raises:
        ConfigError: Its tag, a class, a colour or a count is missing or unknown.
    """
    facts = item.facts
    problem = None
    if facts.get("tag") not in TAGS:
        problem = f"its tag is {facts.get('tag')!r}, not one of {', '.join(TAGS)}"
    elif not facts.get("include"):
        problem = "it names no object to look for"
    for wanted in (*facts.get("include", ()), *facts.get("exclude", ())):
        if wanted.get("class") not in CLASSES:
            problem = f"its object {wanted.get('class')!r} is not one of the 80 classes of COCO"
        elif not isinstance(wanted.get("count"), int):
            problem = f"it does not say how many of {wanted['class']!r}"
        elif wanted.get("color", COLOURS[0]) not in COLOURS:
            problem = f"its colour {wanted['color']!r} is not one of {', '.join(COLOURS)}"
    if problem:
        raise ConfigError(
            f"geneval cannot score the prompt {item.id}: {problem}. Use the prompt set geneval, whose "
            f"evaluation_metadata.jsonl says what to look for, or leave the metric out."
        )
