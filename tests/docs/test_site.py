"""The menu of the site: `make docs` builds it strictly, and this says earlier what would stop it."""

import re

import pytest

from tests.docs.test_code_names import ROOT

DOCS = ROOT / "docs"
MENU = re.findall(r"^ +- ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_page_is_in_the_menu_once() -> None:
    assert sorted(MENU) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_links_to_nothing_outside_of_the_site(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    targets = [(DOCS / page).parent / link.partition("#")[0] for link in links if "://" not in link and link[0] != "#"]
    assert [str(target) for target in targets if not target.resolve().is_relative_to(DOCS.resolve())] == []
