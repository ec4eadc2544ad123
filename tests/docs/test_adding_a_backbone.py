"""docs/adding-a-backbone.md, followed literally: every named block is written, every command is run, offline."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.following import blocks, follow

PAGE = "adding-a-backbone.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the last command of the page, and everything that was printed."""
    folder = tmp_path_factory.mktemp("reader")
    return folder, follow(PAGE, folder)


def test_every_block_is_a_named_file_or_a_command() -> None:
    assert [language for language, name, _ in blocks(PAGE) if not name] == ["sh"] * 4
    assert len([name for _, name, _ in blocks(PAGE) if name]) == 7


@pytest.mark.slow
def test_the_installed_package_serves_the_pipeline(followed: tuple[Path, str]) -> None:
    _, printed = followed
    assert "adapter    auraflow (fewstep_auraflow.AuraFlowAdapter)" in printed
    assert "pipeline   AuraFlowPipeline" in printed
    assert "recipes    auraflow\n" in printed


@pytest.mark.slow
def test_the_adapter_passes_the_suite_and_nothing_is_skipped(followed: tuple[Path, str]) -> None:
    _, printed = followed
    count = re.search(r"^=+ (\d+) passed in ", printed, flags=re.MULTILINE)
    assert count is not None and int(count[1]) > 35


@pytest.mark.slow
def test_two_steps_are_trained(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(f"loss/{name}" in line for line in lines for name in ("ca", "dm", "cdm", "fake_score"))


@pytest.mark.slow
def test_a_picture_is_drawn(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    picture = Image.open(folder / "picture.png")
    assert picture.size == (16, 16)
    assert len(set(picture.convert("L").tobytes())) > 10
