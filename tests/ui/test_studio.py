"""Drawing for the page: the same pictures as everywhere else, one at a time."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.sampling import sample
from fewstep.sampling.generate import DrawingModel
from fewstep.ui.offers import Offer, named_by
from fewstep.ui.studio import Asked, Order, Row, Studio

PROMPT = "a red cat"


@pytest.fixture(scope="module")
def offers(finished: Path) -> Sequence[Offer]:
    """A run's teacher, which draws in 3 steps of its own, and its student."""
    return named_by([str(finished / "whole")], device="cpu").offers


def drawn(asked: Sequence[Asked], studio: Studio | None = None) -> list[Row]:
    *_, rows = (studio or Studio()).draw(asked)
    return rows


def pictures(row: Row) -> list[Image.Image]:
    return [Image.open(io.BytesIO(shot.content)) for shot in row.shots]


def pixels(images: Sequence[Image.Image]) -> list[bytes]:
    return [image.convert("RGB").tobytes() for image in images]


def test_a_run_draws_what_its_exported_student_and_its_teacher_draw(
    offers: Sequence[Offer], finished: Path, tmp_path: Path
) -> None:
    export(finished / "whole", tmp_path / "student")
    teacher, student = drawn(Order(PROMPT, [offer.name for offer in offers], seed=5, count=2).pictures(offers))
    for seed, position in ((5, 0), (6, 1)):
        own = {"seed": seed, "batch": 1, "device": "cpu"}
        expected = sample(tmp_path / "student", PROMPT, **own)
        assert pixels(pictures(student))[position] == pixels(expected)[0]
        expected = sample(finished / "teacher", PROMPT, steps=3, guidance_scale=4.5, size="16x16", **own)
        assert pixels(pictures(teacher))[position] == pixels(expected)[0]


def test_a_picture_says_how_it_was_drawn(offers: Sequence[Offer]) -> None:
    (row,) = drawn(Order(PROMPT, ["whole"], steps=2, seed=7).pictures(offers))
    (picture,) = pictures(row)
    assert picture.info["parameters"].startswith(f"{PROMPT}\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 7,")
    assert (row.shots[0].steps, row.shots[0].seed, row.shots[0].guidance_scale) == (2, 7, 1.0)


def test_a_ladder_has_one_seed_and_ends_at_the_teachers_own_number(offers: Sequence[Offer]) -> None:
    asked = Order(PROMPT, [offer.name for offer in offers], guidance_scale=2.0, seed=3, count=8).ladder(offers)
    assert [one.takes for one in asked] == [
        ((3, 1), (3, 2), (3, 4), (3, 8), (3, None)),
        ((3, 1), (3, 2), (3, 4), (3, 8)),
    ]
    assert [one.guidance_scale for one in asked] == [2.0, None]
    assert [shot.steps for shot in drawn(asked[:1])[0].shots] == [1, 2, 4, 8, 3]


def test_steps_and_guidance_of_teachers_are_not_those_of_students(offers: Sequence[Offer]) -> None:
    teacher, student = Order(PROMPT, [offer.name for offer in offers], 2, 9, 1.5, 0, 1).pictures(offers)
    assert (teacher.takes, teacher.guidance_scale) == (((0, 9),), 1.5)
    assert (student.takes, student.guidance_scale) == (((0, 2),), None)


def test_what_a_model_cannot_do_is_told_beside_what_the_others_draw(offers: Sequence[Offer]) -> None:
    def broken() -> DrawingModel:
        raise ConfigError("It is gone.")

    asked = Order(PROMPT, ["whole", "broken"]).pictures([replace(offers[1], name="broken", load=broken), offers[1]])
    broken_row, row = drawn(asked)
    assert (broken_row.problem, broken_row.shots, broken_row.doing) == ("It is gone.", [], "")
    assert len(row.shots) == 1


def test_a_student_is_loaded_once_until_its_run_has_saved_again(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "whole", tmp_path / "run")
    loads, studio = 0, Studio()
    offer = named_by([str(run)], device="cpu").offers[1]

    def counted() -> DrawingModel:
        nonlocal loads
        loads += 1
        return offer.load()

    asked = Order(PROMPT, [offer.name]).pictures([replace(offer, load=counted)])
    before = [shot.content for _ in range(2) for shot in drawn(asked, studio)[0].shots]
    assert (loads, before[0]) == (1, before[1])
    (saved,) = (run / "checkpoints").glob("step-*")
    shutil.copytree(saved, saved.with_name("step-00000099"))
    drawn(asked, studio)
    assert loads == 2


def test_a_drawing_that_is_stopped_keeps_what_is_there(offers: Sequence[Offer]) -> None:
    studio = Studio()
    rows: list[Row] = []
    for rows in studio.draw(Order(PROMPT, ["whole"], count=5).pictures(offers)):
        if len(rows[0].shots) == 2:
            studio.stop()
    assert (len(rows[0].shots), rows[0].problem) == (2, "Stopped.")
    assert len(drawn(Order(PROMPT, ["whole"]).pictures(offers), studio)[0].shots) == 1
