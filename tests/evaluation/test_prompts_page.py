"""The page of every prompt: all pictures with their scores, as files beside it, and nothing that a text could break."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from rich.console import Console

from fewstep.evaluation.prompts_page import write_prompts_page
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.scoring import score
from tests.evaluation.pictures import Brightness, Spread, paint, task_of

TASK = task_of('<script>alert("x")</script> & more', *(f"prompt {number}" for number in range(11)), seeds=(0, 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {"a b": lambda prompt, seed: 10 * prompt + seed, "teacher": lambda prompt, seed: 7}
    folder, records = paint(tmp_path_factory.mktemp("pages") / "e", TASK, models)
    metrics = (Brightness(), Spread())
    found = score(folder, TASK, records, metrics, ranks=Ranks(), console=Console(quiet=True), device="cpu")
    write_prompts_page(folder, TASK, found)
    return folder.path / "prompts.html"


def test_every_picture_of_every_prompt_is_shown_from_its_file(page: Path) -> None:
    shown = re.findall(r'<img loading="lazy" src="([^"]+)"', page.read_text())
    assert len(shown) == len(set(shown)) == 12 * 2 * 2
    assert all((page.parent / unquote(path)).is_file() for path in shown)


def test_a_picture_is_told_with_its_scores(page: Path) -> None:
    assert "<figcaption>a b, seed 1, brightness 31</figcaption>" in page.read_text()
    assert "spread" not in page.read_text()


def test_a_prompt_is_text_and_never_markup(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "<b>&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more</b>" in text


def test_the_page_asks_for_nothing_from_outside(page: Path) -> None:
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page.read_text()) == []
