"""docs/glossary.md: the words of its first column are the words of the source."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE
)
WORDS = [word for row in ROWS for word in re.findall(r"`(\w+)`", row)]


@pytest.fixture(scope="module")
def source() -> set[str]:
    paths = (ROOT / "src" / "fewstep").rglob("*.py")
    return {word for path in paths for word in re.findall(r"\w+", f"{path.stem} {path.read_text('utf-8')}")}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_a_word_of_the_source(word: str, source: set[str]) -> None:
    assert word in source


def test_no_word_has_two_meanings() -> None:
    assert len(WORDS) > 40
    assert sorted(WORDS) == sorted(set(WORDS))
