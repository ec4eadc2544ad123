"""The pages that add a backbone, followed literally: every named block is written, every command is run, offline."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.following import ROOT, blocks, follow


@dataclass(frozen=True)
class Guide:
    """One page of docs/, and what it adds.

    Attributes:
        adapter: The file of the class.
        check: What `fewstep check` says of the tiny teacher.
        num_files, num_commands: Blocks that name a file, and blocks that are run.
    """

    page: str
    adapter: str
    check: tuple[str, ...]
    num_files: int
    num_commands: int


GUIDES = {
    "unpacked": Guide(
        "adding-a-backbone.md",
        "fewstep-auraflow/fewstep_auraflow.py",
        (
            "adapter    auraflow (fewstep_auraflow.AuraFlowAdapter)",
            "pipeline   AuraFlowPipeline",
            "recipes    auraflow\n",
        ),
        num_files=7,
        num_commands=4,
    ),
    "packed": Guide(
        "adding-a-packed-backbone.md",
        "fewstep-ovis/fewstep_ovis.py",
        ("adapter    ovis-image (fewstep_ovis.OvisImageAdapter)", "pipeline   OvisImagePipeline"),
        num_files=6,
        num_commands=4,
    ),
}
each_guide = pytest.mark.parametrize("guide", GUIDES.values(), ids=list(GUIDES))


@dataclass(frozen=True)
class Followed:
    """The folder after the last command of a page, and everything that was printed."""

    guide: Guide
    folder: Path
    printed: str


@pytest.fixture(scope="module", params=GUIDES.values(), ids=list(GUIDES))
def followed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder = tmp_path_factory.mktemp("reader")
    return Followed(request.param, folder, follow(request.param.page, folder))


@each_guide
def test_every_block_is_a_named_file_or_a_command(guide: Guide) -> None:
    found = list(blocks(guide.page))
    assert [language for language, name, _ in found if not name] == ["sh"] * guide.num_commands
    assert len([name for _, name, _ in found if name]) == guide.num_files


@each_guide
def test_the_adapter_is_as_short_as_the_page_says(guide: Guide) -> None:
    (adapter,) = (content for _, name, content in blocks(guide.page) if name == guide.adapter)
    num_lines = len(adapter.splitlines())
    assert 35 <= num_lines <= 50
    assert f"{num_lines} lines" in (ROOT / "docs" / guide.page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_installed_package_serves_the_pipeline(followed: Followed) -> None:
    for line in followed.guide.check:
        assert line in followed.printed


@pytest.mark.slow
def test_the_adapter_passes_the_suite_and_nothing_is_skipped(followed: Followed) -> None:
    count = re.search(r"^=+ (\d+) passed in ", followed.printed, flags=re.MULTILINE)
    assert count is not None and int(count[1]) > 35


@pytest.mark.slow
def test_two_steps_are_trained(followed: Followed) -> None:
    lines = [json.loads(line) for line in (followed.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(f"loss/{name}" in line for line in lines for name in ("ca", "dm", "cdm", "fake_score"))


@pytest.mark.slow
def test_a_picture_is_drawn(followed: Followed) -> None:
    picture = Image.open(followed.folder / "picture.png")
    assert picture.size == (16, 16)
    assert len(set(picture.convert("L").tobytes())) > 10
