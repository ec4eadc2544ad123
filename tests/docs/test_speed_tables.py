"""The tables of speed in docs/scaling.md are what the result files say."""

import pytest
from benchmarks import speed_tables
from benchmarks.pages import filled


def test_the_tables_of_speed_are_those_of_the_result_files() -> None:
    page = speed_tables.PAGE.read_text()
    assert filled(page, speed_tables.TABLES) == page


@pytest.mark.parametrize("name", speed_tables.TABLES)
def test_the_page_has_the_table(name: str) -> None:
    assert f"<!-- table: {name} -->\n| " in speed_tables.PAGE.read_text()
