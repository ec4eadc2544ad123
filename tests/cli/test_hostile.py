"""A few of the hostile inputs of the slow tier (tests/slow/test_hostile.py), one or two of every sort."""

from pathlib import Path

import pytest

from tests.hostile.judge import faults
from tests.hostile.models import hostile_models
from tests.hostile.prompt_files import hostile_prompt_files
from tests.hostile.settings import hostile_overrides, hostile_recipes
from tests.training.tiny_run import write_inputs


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    write_inputs(folder)
    return folder


@pytest.mark.parametrize("number", range(12))
def test_hostile_settings_are_taken_or_refused(number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = [*hostile_overrides(8), *hostile_recipes(4)][number]
    assert faults(case, tmp_path, capfd) == []


@pytest.mark.parametrize("number", range(12))
def test_a_hostile_model_is_used_or_refused(
    number: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert faults(hostile_models(origin, 12)[number], tmp_path, capfd) == []


@pytest.mark.parametrize("number", range(6))
def test_a_hostile_prompt_file_is_read_or_refused(
    number: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert faults(hostile_prompt_files(origin)[number * 13], tmp_path, capfd) == []
