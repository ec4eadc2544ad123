"""The tables of docs/demo.md are what the result files say."""

from benchmarks import tables
from benchmarks.pages import filled


def test_the_tables_of_the_demo_page_are_those_of_the_result_files() -> None:
    page = tables.PAGE.read_text()
    assert filled(page, tables.TABLES) == page


def test_the_page_has_every_table() -> None:
    page = tables.PAGE.read_text()
    assert all(f"<!-- table: {name} -->\n| " in page for name in tables.TABLES)
