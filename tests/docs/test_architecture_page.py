"""docs/architecture.md: what stands under a file is imported by it."""

import re
from pathlib import Path

import pytest

from tests.test_architecture import SOURCE, imports_of

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def steps() -> list[tuple[str, str]]:
    """Every (file, file above it) of the page's nested lists."""
    found: list[tuple[str, str]] = []
    above: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        item = re.match(r"( *)- `([\w/]+\.py)`: ", line)
        if item is None:
            assert not line.lstrip().startswith("- "), f"an item names no file first: {line}"
            continue
        depth = len(item[1]) // 2
        assert depth <= len(above), f"an item hangs in the air: {line}"
        above = [*above[:depth], item[2]]
        found += [(item[2], above[depth - 1])] if depth else []
    return found


@pytest.mark.parametrize(("below", "above"), dict.fromkeys(steps()))
def test_a_file_is_imported_by_the_one_it_stands_under(below: str, above: str) -> None:
    module = "fewstep." + below.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    whole = module in {found.module for found in imports_of(SOURCE / above)}
    assert whole or re.search(rf"from {package} import .*\b{name}\b", (SOURCE / above).read_text(encoding="utf-8"))


def test_the_page_has_its_five_walks() -> None:
    walks = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert walks == ["A prompt", "A sigma", "An override", "A tensor on resume", "A picture to the report"]
    assert len(steps()) > 40
