"""The tables of docs/demo.md and docs/scenes.md are what the result files say."""

from pathlib import Path

import pytest
from benchmarks.pages import filled
from benchmarks.tables import PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_result_files(page: Path) -> None:
    text = page.read_text()
    assert filled(text, PAGES[page]) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_has_every_table(page: Path) -> None:
    assert all(f"<!-- table: {name} -->\n| " in page.read_text() for name in PAGES[page])
