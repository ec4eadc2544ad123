"""The grammar of scenes: every sentence is read back, and what is held out is never drawn."""

import random

import pytest

from fewstep.embedded.scenes.grammar import (
    HELD_OUT_SHARE,
    MAX_WORDS,
    NOUNS,
    Group,
    Scene,
    draw_scene,
    parse,
    plural,
    vocabulary,
)
from tools.scenes.networks import NUM_TOKENS, build_tokenizer, tokenize


def scenes(num: int, *, held_out: bool = False) -> list[Scene]:
    rng = random.Random(3)
    return [draw_scene(rng, held_out=held_out) for _ in range(num)]


def test_the_example_is_a_sentence() -> None:
    scene = Scene((Group("apple", 2, tint="red"), Group("cat")), "to the left of", "white")
    assert scene.sentence() == "two red apples to the left of a cat, on white"
    assert parse(scene.sentence()) == scene


def test_every_drawn_sentence_is_read_back() -> None:
    drawn = scenes(3_000)
    assert [parse(scene.sentence()) for scene in drawn] == drawn


def test_there_are_more_than_ten_thousand_prompts_of_forty_nouns() -> None:
    assert len({scene.sentence() for scene in scenes(20_000)}) > 10_000
    assert len(NOUNS) == 40


def test_a_tenth_of_the_combinations_is_held_out_whatever_else_is_said() -> None:
    pairs = [Scene((Group(a), Group(b)), "above") for a in NOUNS for b in NOUNS if a != b]
    assert sum(pair.held_out for pair in pairs) / len(pairs) == pytest.approx(HELD_OUT_SHARE, abs=0.03)
    for pair in pairs[:200]:
        told = Scene((Group(pair.groups[0].noun, 2), pair.groups[1]), "above", "black", "flat")
        assert told.held_out == pair.held_out
    assert not any(Scene((Group(noun),)).held_out for noun in NOUNS)


def test_what_is_held_out_is_held_out_in_either_order_and_the_rest_is_trained_on() -> None:
    assert all(scene.held_out and scene.turned.held_out for scene in scenes(50, held_out=True))
    assert not any(scene.held_out for scene in scenes(500))


@pytest.mark.parametrize(
    ("told", "turned"),
    [
        ("two red apples to the left of a cat, on white", "a cat to the right of two red apples, on white"),
        ("a dog below a pig, flat", "a pig above a dog, flat"),
        ("a dog and a small pig", "a small pig and a dog"),
        ("three big cats", "three big cats"),
    ],
)
def test_a_scene_is_turned_round_and_back(told: str, turned: str) -> None:
    assert parse(told).turned.sentence() == turned and parse(turned).turned.sentence() == told


@pytest.mark.parametrize(
    "sentence",
    ["", "a dragon", "two apple", "an cat", "a cat beside a dog", "a cat, on red", "a cats", "a cat, on white, oily"],
)
def test_what_is_no_sentence_is_refused_by_its_text(sentence: str) -> None:
    with pytest.raises(ValueError, match=f"'{sentence}'"):
        parse(sentence)


def test_every_word_is_one_token_and_every_sentence_fits() -> None:
    tokenizer = build_tokenizer()
    ids = tokenize(tokenizer, [*vocabulary(), ","])
    assert (ids != tokenizer.pad_token_id).sum(1).tolist() == [2] * len(ids)  # the begin and the word; ends are pads
    assert len(set(ids[:, 1].tolist())) == len(ids)
    assert NUM_TOKENS == MAX_WORDS + 2
    longest = max(scenes(3_000), key=lambda scene: len(scene.sentence()))
    words = longest.sentence().replace(",", " ,").split()
    assert tokenizer.decode(tokenize(tokenizer, [longest.sentence()])[0, 1 : len(words) + 1]).split() == words


def test_plurals_are_english() -> None:
    assert [plural(noun) for noun in ("cat", "cherry", "snowman", "fox")] == ["cats", "cherries", "snowmen", "foxes"]
