"""The quality protocol on a small judge: an untrained classifier and few pictures measure the same relations."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewstep.demo.protocol import METRICS, Judge, PromptSet, Row, full_set, mean_row, open_set
from fewstep.embedded.classifier import DigitClassifier, Predictions
from fewstep.embedded.prompts import NUM_COLOURS, NUM_DIGITS, full_prompts, open_colour_prompts

PICTURES = 2 * NUM_DIGITS * NUM_COLOURS


class ReadableClassifier(DigitClassifier):
    """Reads digit and colour that a test has written into a picture's first two bytes; the rest is the features."""

    def predict(self, pixels: Tensor, *, batch: int = 256) -> Predictions:
        flat = pixels.flatten(1).double()
        return Predictions(flat[:, 0].long(), flat[:, 1].long(), flat[:, 2:10])


def written(digits: Tensor, colours: Tensor, *, seed: int) -> Tensor:
    """Pictures that ReadableClassifier reads as the given classes, with random features."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (len(digits), 3, 32, 32), generator=generator, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = digits.to(torch.uint8), colours.to(torch.uint8)
    return pixels


@pytest.fixture
def judge() -> Judge:
    reference = ReadableClassifier().predict(written(torch.zeros(PICTURES), torch.zeros(PICTURES), seed=9)).features
    return Judge(ReadableClassifier(), reference, real_diversity=1.0, full=full_set(2), open=open_set(14))


@pytest.fixture
def perfect(judge: Judge) -> tuple[Tensor, Tensor]:
    """Pictures of both prompt sets that show what was asked, all seven colours equally often."""
    assert judge.full.colours is not None
    full = written(judge.full.digits, judge.full.colours, seed=0)
    return full, written(judge.open.digits, torch.arange(len(judge.open)) % NUM_COLOURS, seed=1)


def test_the_full_set_is_1400_pictures_20_of_each_of_70_prompts() -> None:
    prompts = full_set()
    assert len(prompts) == 1400
    assert {prompt: prompts.prompts.count(prompt) for prompt in full_prompts()} == dict.fromkeys(full_prompts(), 20)


def test_the_open_set_is_1400_pictures_140_of_each_of_10_prompts() -> None:
    prompts = open_set()
    assert len(prompts) == 1400
    assert {prompt: prompts.prompts.count(prompt) for prompt in open_colour_prompts()} == dict.fromkeys(
        open_colour_prompts(), 140
    )


def test_a_full_prompt_names_the_digit_and_colour_it_is_scored_by() -> None:
    prompts = full_set(2)
    position = prompts.prompts.index("a green handwritten three")
    assert prompts.colours is not None
    assert (prompts.digits[position], prompts.colours[position]) == (3, 1)


def test_an_open_prompt_names_a_digit_and_no_colour() -> None:
    prompts = open_set(2)
    assert prompts.digits[prompts.prompts.index("a handwritten three")] == 3
    assert prompts.colours is None


@pytest.mark.parametrize("prompts", [full_set(), open_set()], ids=["full", "open"])
def test_no_two_pictures_share_prompt_and_seed(prompts: PromptSet) -> None:
    seeds = [prompts.seeds(noise_seed) for noise_seed in (1000, 1001, 1002)]
    drawn = [pair for each in seeds for pair in zip(prompts.prompts, each, strict=True)]
    assert len(set(drawn)) == len(drawn)


def test_pictures_that_show_what_was_asked_are_accurate(judge: Judge, perfect: tuple[Tensor, Tensor]) -> None:
    assert judge.measure(*perfect, guidance=1.0).accuracy == 1.0


@pytest.mark.parametrize("byte", [0, 1], ids=["digit", "colour"])
def test_accuracy_needs_both_digit_and_colour(judge: Judge, perfect: tuple[Tensor, Tensor], byte: int) -> None:
    full, free = perfect
    full[:14, 0, 0, byte] = 99
    assert judge.measure(full, free, guidance=1.0).accuracy == pytest.approx(0.9)


def test_equal_shares_of_the_open_colours_have_no_total_variation(judge: Judge, perfect: tuple[Tensor, Tensor]) -> None:
    assert judge.measure(*perfect, guidance=1.0).tv == pytest.approx(0.0, abs=1e-12)


def test_one_colour_for_all_open_prompts_is_six_sevenths_from_equal_shares(
    judge: Judge, perfect: tuple[Tensor, Tensor]
) -> None:
    full, free = perfect
    free[:, 0, 0, 1] = 4
    assert judge.measure(full, free, guidance=1.0).tv == pytest.approx(6 / 7)


def test_diversity_is_relative_to_real_pictures(judge: Judge, perfect: tuple[Tensor, Tensor]) -> None:
    halved = dataclasses.replace(judge, real_diversity=2.0)
    assert halved.measure(*perfect, guidance=1.0).diversity == judge.measure(*perfect, guidance=1.0).diversity / 2


def test_diversity_is_measured_on_the_open_prompts_only(judge: Judge, perfect: tuple[Tensor, Tensor]) -> None:
    full, free = perfect
    expected = judge.measure(full, free, guidance=1.0).diversity
    assert judge.measure(full // 2, free, guidance=1.0).diversity == expected


def test_a_model_is_drawn_with_every_noise_seed_and_averaged(judge: Judge, perfect: tuple[Tensor, Tensor]) -> None:
    asked: list[tuple[int, int]] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        asked.append((len(prompts), min(seeds)))
        pixels = perfect[0 if len(asked) % 2 else 1].clone()
        if min(seeds) == 1002_000:
            pixels[:70, 0, 0, 0] = 99
        return pixels

    mean, rows = judge.measure_model(draw, guidance=2.0)
    assert asked == [(PICTURES, 1000 * seed) for seed in (1000, 1000, 1001, 1001, 1002, 1002)]
    assert [row.accuracy for row in rows] == [1.0, 1.0, 0.5]
    assert mean.accuracy == pytest.approx(2.5 / 3)
    assert (mean.guidance, mean.n) == (2.0, PICTURES)


def test_a_mean_row_averages_every_metric() -> None:
    low = Row(**dict.fromkeys(METRICS, 1.0), guidance=2.0, n=4)
    high = Row(**dict.fromkeys(METRICS, 2.0), guidance=2.0, n=4)
    assert mean_row([low, high]) == Row(**dict.fromkeys(METRICS, 1.5), guidance=2.0, n=4)
