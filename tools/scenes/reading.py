"""What a prompt asks for, read off the states of its last tokens while the teacher is trained.

CLIP's text encoder is causal: what stands first in a sentence does not know what follows, and "a cat above a dog" says
which of the two is on top only at its end. A network that is only asked for velocities finds that out late: after 9,000
steps it drew both things one above the other, and the right one on top in half of the pictures.
The head is thrown away with the training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.embedded.scenes.grammar import COUNTS, NOUNS, SIZES, TINTS, Group, Scene
from tools.scenes.classes import NO_CLASS

_GROUP = {"noun": 1 + len(NOUNS), "count": 1 + len(COUNTS), "tint": 1 + len(TINTS), "size": 1 + len(SIZES)}
ASKED = {"axis": 3} | {f"{which} {name}": classes for which in ("first", "second") for name, classes in _GROUP.items()}
"""How many classes there are; the first group is the one to the left or above, the first class of a noun none."""
_SECOND_FIRST = ("to the right of", "below")


def asked_of(scene: Scene) -> Tensor:
    """Name every aspect of what is asked for, ``(9,)``; groups without a relation are in the order of the sentence."""
    told_first = scene.turned if scene.relation in _SECOND_FIRST else scene
    axis = 0 if scene.relation is None else 1 if scene.relation.startswith("to the") else 2
    first, *others = map(_named, told_first.groups)
    told = [axis, *first, *(others[0] if others else (0, NO_CLASS, NO_CLASS, NO_CLASS))]
    return torch.tensor(told, dtype=torch.uint8)


def _named(group: Group) -> tuple[int, int, int, int]:
    return (
        1 + NOUNS.index(group.noun),
        group.count - 1,
        0 if group.tint is None else 1 + TINTS.index(group.tint),
        0 if group.size is None else 1 + SIZES.index(group.size),
    )


def asked_of_tokens(asked: Tensor, ids: Tensor, eos: int) -> Tensor:
    """What each token shall say: all that is asked for from the end of a sentence on, nothing before it.

    Args:
        asked: Of each prompt, ``(b, 9)``.
        ids: Its tokens ``(b, tokens)``, padded with ``eos``; nothing is asked of an empty prompt.
        eos: Token at the end of a sentence.

    Returns:
        Classes ``(9, b * tokens)``.
    """
    ended = (ids == eos) & (ids[:, 1:2] != eos)
    told = torch.where(ended[..., None], asked.long()[:, None], NO_CLASS)
    return told.flatten(0, 1).T
