"""Whether a picture shows what its prompt asks for, as GenEval asks it of photographs."""

from __future__ import annotations

from fewstep.embedded.scenes.detector import Seen
from fewstep.embedded.scenes.grammar import Scene

CATEGORIES = ("single_object", "two_object", "counting", "colors", "position")
"""GenEval's names, for prompts that ask for one thing, and for nothing that a later category asks for."""
MAX_MURKY = 8
"""Of some hundred cells of the ground, those that may be neither empty nor dotted."""
TOLERANCE = 2.0
"""Pixels by which a centre may be seen beside where it is."""


def category(scene: Scene) -> str:
    """Name the category of a prompt: the hardest thing that it asks for."""
    if scene.relation is not None:
        return "position"
    if scene.background is not None or any(group.tint for group in scene.groups):
        return "colors"
    if any(group.count > 1 for group in scene.groups):
        return "counting"
    return "single_object" if len(scene.groups) == 1 else "two_object"


def is_right(scene: Scene, seen: Seen) -> bool:
    """Whether all that a prompt names is there, in the number, tint, place and on the ground it names, and no more.

    Nor may the dots of the ground be faint. Whether the things are clear is not asked (:func:`is_clear`), nor are sizes
    and styles: what is big is a matter of the other objects.
    """
    if seen.murky > MAX_MURKY or scene.background not in (None, seen.background):
        return False
    if len(seen.objects) != scene.num_objects:
        return False
    groups = [
        [found for found in seen.objects if found.noun == group.noun and found.tint == group.tint]
        for group in scene.groups
    ]
    if any(len(found) != group.count for found, group in zip(groups, scene.groups, strict=True)):
        return False
    return scene.relation is None or all(
        lies((a.x, a.y), (b.x, b.y), scene.relation, tolerance=TOLERANCE) for a in groups[0] for b in groups[1]
    )


def is_clear(seen: Seen) -> bool:
    """Whether nothing in a picture is faint, soft, doubled or mixed with another thing."""
    return all(found.clear for found in seen.objects)


def lies(first: tuple[float, float], second: tuple[float, float], relation: str, *, tolerance: float = 0.0) -> bool:
    """Whether a centre lies to another one as a relation says: farther along it than across it."""
    right, down = first[0] - second[0], first[1] - second[1]
    along, across = {
        "to the left of": (-right, down),
        "to the right of": (right, down),
        "above": (-down, right),
        "below": (down, right),
    }[relation]
    return along + tolerance > abs(across) and along > 0
