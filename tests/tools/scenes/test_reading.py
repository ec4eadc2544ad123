"""What a prompt asks for, as classes, and which tokens have to know it."""

import math

import pytest
import torch

from fewstep.embedded.scenes.grammar import NOUNS, TINTS, parse
from tools.scenes.classes import NO_CLASS, classes_loss
from tools.scenes.networks import build_tokenizer, tokenize
from tools.scenes.reading import ASKED, asked_of, asked_of_tokens

NOTHING = (0, NO_CLASS, NO_CLASS, NO_CLASS)


def kind(noun: str, count: int = 1, tint: str | None = None, size: int = 0) -> tuple[int, int, int, int]:
    return 1 + NOUNS.index(noun), count - 1, 0 if tint is None else 1 + TINTS.index(tint), size


@pytest.mark.parametrize(
    ("sentence", "axis", "first", "second"),
    [
        ("a cat", 0, kind("cat"), NOTHING),
        ("three big red foxes, on pink", 0, kind("fox", 3, "red", 2), NOTHING),
        ("a dog and two small cats", 0, kind("dog"), kind("cat", 2, size=1)),
        ("two green apples to the left of a cat", 1, kind("apple", 2, "green"), kind("cat")),
        ("a cat to the right of two green apples", 1, kind("apple", 2, "green"), kind("cat")),
        ("a pig above an octopus", 2, kind("pig"), kind("octopus")),
        ("an octopus below a pig, flat", 2, kind("pig"), kind("octopus")),
    ],
)
def test_the_first_group_is_the_one_to_the_left_or_above(
    sentence: str, axis: int, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    assert asked_of(parse(sentence)).tolist() == [axis, *first, *second]


def test_only_tokens_from_the_end_of_a_sentence_on_are_asked() -> None:
    tokenizer = build_tokenizer()
    ids = tokenize(tokenizer, ["a cat, on pink", ""])
    asked = torch.stack([asked_of(parse("a cat, on pink")), asked_of(parse("a dog"))])
    told = asked_of_tokens(asked, ids, tokenizer.eos_token_id).view(len(ASKED), *ids.shape)
    # one token before the sentence, and its five
    assert (told[:, 0, :6] == NO_CLASS).all() and (told[:, 1] == NO_CLASS).all()
    assert (told[:, 0, 6:] == asked[0].long()[:, None]).all()


def test_the_loss_adds_up_the_aspects_of_every_place_that_has_one() -> None:
    told = asked_of(parse("a cat and a dog")).long()[:, None]
    uniform = torch.zeros(1, sum(ASKED.values()))
    assert float(classes_loss(uniform, told, ASKED)) == pytest.approx(
        sum(math.log(n) for n in ASKED.values()), rel=1e-5
    )
    alone = asked_of(parse("a cat")).long()[:, None]
    left = sum(math.log(n) for name, n in ASKED.items() if not name.startswith("second") or name == "second noun")
    assert float(classes_loss(uniform, alone, ASKED)) == pytest.approx(left, rel=1e-5)
