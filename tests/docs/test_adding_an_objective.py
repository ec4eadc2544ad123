"""docs/adding-an-objective.md, followed literally: every named block is written, every command is run, offline."""

import json
from pathlib import Path

import pytest

from tests.docs.following import blocks, follow

PAGE = "adding-an-objective.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the last command of the page, and everything that was printed."""
    folder = tmp_path_factory.mktemp("reader")
    return folder, follow(PAGE, folder)


def test_every_block_is_a_named_file_or_a_command_or_the_example_of_a_recipe() -> None:
    assert [language for language, name, _ in blocks(PAGE) if not name] == ["yaml", "sh", "sh"]
    assert len([name for _, name, _ in blocks(PAGE) if name]) == 4


@pytest.mark.slow
def test_the_package_is_listed_and_its_oracle_holds(followed: tuple[Path, str]) -> None:
    _, printed = followed
    assert "1 passed" in printed
    assert "loss term sds: fewstep_sds:ScoreDistillation of fewstep-sds 0.1.0" in printed
    assert "guidance_scale: 2.0" in printed


@pytest.mark.slow
def test_the_term_is_trained_and_stands_in_the_run(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss/sds" in line for line in lines) == 2
    assert json.loads((folder / "run" / "config.json").read_text())["terms"]["sds"]["guidance_scale"] == 2.0


@pytest.mark.slow
def test_a_student_is_exported(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    assert (folder / "student" / "model_index.json").is_file()
