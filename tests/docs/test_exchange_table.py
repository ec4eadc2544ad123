"""The table of many devices in docs/scaling.md is what its program writes."""

from pathlib import Path

import pytest

from tools.pages.exchange import CASES, HEADINGS, NETWORKS, filled, rows
from tools.pages.plans import line

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def lines() -> list[str]:
    return PAGE.split("<!-- table: exchange -->\n")[1].split("<!-- end -->")[0].splitlines()


def test_the_page_has_a_line_for_every_case_and_network() -> None:
    assert lines()[0] == line(HEADINGS)
    begun = [tuple(cells.strip() for cells in text.split("|")[1:3]) for text in lines()[2:]]
    assert begun == [(recipe, mode) for recipe, mode, _ in CASES for _ in NETWORKS]


def test_the_table_goes_between_its_marks() -> None:
    page = "a\n<!-- table: exchange -->\nold\n<!-- end -->\nb\n"
    assert filled(page, "new") == "a\n<!-- table: exchange -->\nnew\n<!-- end -->\nb\n"


@pytest.mark.slow
def test_the_lines_of_the_smallest_recipe_are_those_of_the_page() -> None:
    assert list(rows(*CASES[0])) == lines()[2 : 2 + len(NETWORKS)]
