"""The list of pages for programs: what stands for each page, and where."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.pages.llms import first_sentence, on_nav, on_post_build


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("# Title\n\nOne page\nsays this. And that.\n", "One page says this."),
        ("# Title\n\n```\ncode. here\n```\n| a table |\n\nThen: prose, at last? Yes.", "Then: prose, at last?"),
        ("# Title\n\n![picture](p.png)\n\n**Bold** and [a link](there.md).", "Bold and a link."),
        ("# Title\n\n* an item. No\n\n::: a.module\n", ""),
    ],
)
def test_the_first_sentence_of_a_page_stands_for_it(page: str, said: str) -> None:
    assert first_sentence(page) == said


def test_every_page_is_listed_in_the_order_of_the_navigation(tmp_path: Path) -> None:
    pages = [
        SimpleNamespace(title="Start", url="", markdown="# Start\n\nBegin here."),
        SimpleNamespace(title="More", url="more/", markdown="# More\n\nGo on."),
    ]
    config = SimpleNamespace(site_name="it", site_description="does that", site_dir=str(tmp_path), extra={})
    on_nav(SimpleNamespace(pages=pages), config, files=None)
    on_post_build(config)
    assert (tmp_path / "llms.txt").read_text() == (
        "# it\n\n> does that\n\n## Pages\n\n- [Start](.): Begin here.\n- [More](more/): Go on.\n"
    )
