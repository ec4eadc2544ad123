"""What the page shows of pictures: everything that somebody wrote is text."""

from dataclasses import replace

import pytest

from fewstep.ui.html import note_html, rows_html
from fewstep.ui.offers import Offer, named_by
from fewstep.ui.studio import Row, Shot

EVIL = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&"


@pytest.fixture(scope="module")
def offer() -> Offer:
    return named_by([]).offers[0]


def shot(**values: float) -> Shot:
    return replace(Shot(b"PNG", "image/png", seed=3, steps=4, guidance_scale=1.5, seconds=0.25), **values)


def test_prompts_names_and_problems_are_text(offer: Offer) -> None:
    row = Row(replace(offer, name=EVIL), 1, [shot()], doing=EVIL, problem=EVIL)
    for html in (rows_html(EVIL, [row]), note_html(EVIL)):
        assert "<script" not in html and "<img src=x" not in html and "onerror='" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_a_row_tells_steps_guidance_and_the_mean_of_the_seconds(offer: Offer) -> None:
    html = rows_html("a cat", [Row(offer, 2, [shot(), shot(seed=4, seconds=0.75)])])
    assert "4 steps · guidance 1.5 · 0.5 s per picture" in html
    assert "seed 3" in html and "seed 4" in html


def test_a_student_has_no_guidance_to_tell(offer: Offer) -> None:
    assert "guidance" not in rows_html("a cat", [Row(replace(offer, few=True), 1, [shot()])])


def test_a_ladder_tells_steps_and_seconds_below_each_picture(offer: Offer) -> None:
    html = rows_html("a cat", [Row(offer, 2, [shot(steps=1), shot()])], caption="steps")
    assert "1 step · 0.25 s" in html and "4 steps · 0.25 s" in html


@pytest.mark.parametrize(("expected", "columns"), [(1, 1), (5, 5), (8, 4)])
def test_pictures_of_one_seed_stand_in_one_column(offer: Offer, expected: int, columns: int) -> None:
    assert f"--fs-columns:{columns}" in rows_html("", [Row(offer, 1, []), Row(offer, expected, [])])


def test_what_is_not_drawn_yet_has_its_place(offer: Offer) -> None:
    assert rows_html("", [Row(offer, 4, [shot()])]).count("fs-blank") == 3
    assert rows_html("", [Row(offer, 4, [shot()], problem="Stopped.")]).count("fs-blank") == 0
