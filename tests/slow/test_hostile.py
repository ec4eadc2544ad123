"""Thousands of hostile inputs: each command ends with 0 or 2, in a few lines, quickly, and touches nothing else.

What is promised stands in docs/security.md; what is tried, in tests/hostile.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from tests.hostile.evaluations import hostile_evaluations, write_evaluation
from tests.hostile.judge import CANARY, Case, faults, judged
from tests.hostile.models import hostile_models
from tests.hostile.prompt_files import hostile_prompt_files
from tests.hostile.run_folders import holes_in_run_folders, hostile_metrics, hostile_run_folders
from tests.hostile.settings import hostile_overrides, hostile_recipes
from tests.training.tiny_run import write_inputs

BLOCKS = 10


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is damaged afterwards: a teacher, prompts, a recipe, and its run of one update."""
    folder = tmp_path_factory.mktemp("origin")
    recipe = write_inputs(folder)
    recipe.write_text(recipe.read_text().replace('"student_updates": 3', '"student_updates": 1'))
    assert execute(["train", str(recipe), "--output", str(folder / "run")]) == 0
    return folder


def block_of(cases: Sequence[Case], block: int) -> Sequence[Case]:
    return cases[block::BLOCKS]


def all_faults(cases: Sequence[Case], folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [fault for number, case in enumerate(cases) for fault in faults(case, folder / str(number), capfd)]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_4000_settings_are_taken_or_refused(block: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cases = [*hostile_overrides(3700), *hostile_recipes(300)]
    assert len(cases) == 4000
    assert all_faults(block_of(cases, block), tmp_path, capfd) == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_200_models_are_used_or_refused(
    block: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert all_faults(block_of(hostile_models(origin, 200), block), tmp_path, capfd) == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_200_run_folders_and_caches_are_used_or_refused(
    block: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert all_faults(block_of(hostile_run_folders(origin, 200), block), tmp_path, capfd) == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_metrics_that_no_training_wrote_are_told_or_refused(
    block: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert all_faults(block_of(hostile_metrics(origin), block), tmp_path, capfd) == []


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    write_evaluation(folder)
    return folder


@pytest.mark.parametrize("block", range(BLOCKS))
def test_100_evaluations_are_gone_on_with_or_refused(
    block: int, evaluated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert all_faults(block_of(hostile_evaluations(evaluated, 100), block), tmp_path, capfd) == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_hole_in_any_file_of_a_run_is_not_read_to_its_end(
    block: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert all_faults(block_of(holes_in_run_folders(origin), block), tmp_path, capfd) == []


@pytest.mark.parametrize("block", range(BLOCKS))
def test_prompt_files_are_read_or_refused(
    block: int, origin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = hostile_prompt_files(origin)
    assert len(cases) >= 60
    assert all_faults(block_of(cases, block), tmp_path, capfd) == []


def as_command(case: Case, folder: Path) -> tuple[int, str, float, int]:
    """Run a case as a user does: exit code, standard error, seconds of the processor, bytes at the peak."""
    here = folder / "here"
    here.mkdir(parents=True)
    case.prepare(here)
    with (folder / "said").open("wb") as said:
        job = subprocess.Popen(
            [sys.executable, "-m", "fewstep", *case.arguments],
            cwd=here,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
        )
        _, status, used = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
    told = (folder / "said").read_text(errors="backslashreplace")
    return job.returncode, told, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


@pytest.mark.parametrize("kind", ["settings", "models", "run folders", "prompt files"])
def test_a_sample_behaves_the_same_as_real_commands(kind: str, origin: Path, tmp_path: Path) -> None:
    cases = {
        "settings": hostile_overrides(3700)[::925],
        "models": hostile_models(origin, 200)[::67],
        "run folders": hostile_run_folders(origin, 200)[::67],
        "prompt files": hostile_prompt_files(origin)[::25],
    }[kind]
    # what starting costs, with all the libraries: what a case may take comes on top
    _, _, seconds, size = as_command(Case("nothing", ("check", str(origin / "teacher"))), tmp_path / "nothing")
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        code, said, took, peak = as_command(case, folder)
        assert judged(code, said, seconds=took - seconds, grown=peak - size) == [], case.name
        assert not (folder / CANARY).exists(), case.name
