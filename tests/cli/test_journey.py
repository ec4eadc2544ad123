"""From a recipe file to a picture, through the commands, on a tiny real pipeline; and what each refuses on the way."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fewstep.cli.main import execute
from tests.training.tiny_run import write_inputs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml, and its run of one update in ``run``."""
    folder = tmp_path_factory.mktemp("journey")
    recipe = write_inputs(folder)
    assert execute(["train", str(recipe), "budget.student_updates=1", "--output", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder to work in."""
    copy = tmp_path / "here"
    shutil.copytree(trained, copy)
    monkeypatch.chdir(copy)
    return copy


def train_again(trained: Path, *arguments: str) -> int:
    """Ask for the run once more; the recipe stays where its prompts are, so that its settings are the same."""
    return execute(["train", str(trained / "tiny.yaml"), "--output", "run", *arguments])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("fewstep: ")
    return said.removeprefix("fewstep: ")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock, which holds nothing."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_run_is_filed_under_its_recipe_and_hash(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(trained / "tiny.yaml"), "budget.student_updates=1", "--root", str(tmp_path / "runs")]
    assert execute(arguments) == 0
    (run,) = (path for path in (tmp_path / "runs").iterdir() if not path.name.startswith("."))
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", run.name)
    said = capsys.readouterr().out
    assert said == f"The run is in {run}. Next: fewstep export {run} --output out/student\n"


def test_an_existing_run_is_refused_without_resume(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(here / "run")
    said = refused(capsys, train_again(trained))
    assert said.startswith("The run run exists already; go on with it with --resume")
    assert content(here / "run") == before


def test_resuming_with_a_larger_budget_goes_on(trained: Path, here: Path) -> None:
    assert train_again(trained, "budget.student_updates=2", "--resume") == 0
    assert [json.loads(line)["step"] for line in (here / "run" / "metrics.jsonl").read_text().splitlines()] == [
        0,
        1,
        2,
        3,
    ]


def test_resuming_with_other_settings_is_refused_with_the_difference(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(here / "run")
    said = refused(capsys, train_again(trained, "student.lr=5e-4", "--resume"))
    assert "belongs to a run with other settings" in said
    assert "student.lr: 0.001 -> 0.0005" in said
    assert content(here / "run") == before


def test_resuming_from_a_truncated_checkpoint_is_refused_and_keeps_it(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint,) = (here / "run" / "checkpoints").glob("step-*")
    largest = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    said = refused(capsys, train_again(trained, "budget.student_updates=2", "--resume"))
    assert f"{largest.name} holds 1000 bytes instead of" in said
    assert largest.stat().st_size == 1000


def test_exporting_a_truncated_checkpoint_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint,) = (here / "run" / "checkpoints").glob("step-*")
    largest = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    said = refused(capsys, execute(["export", "run", "--output", "out"]))
    assert f"{largest.name} holds 1000 bytes instead of" in said
    assert not (here / "out").exists()


def test_an_exported_student_draws_the_same_picture_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["export", "run", "--output", "out/student"]) == 0
    assert "DiffusionPipeline.from_pretrained" in capsys.readouterr().out
    for name in ("one.png", "two.png"):
        drawn = execute(["sample", "out/student", "--prompt", "a red cat", "--seed", "7", "--output", name])
        assert drawn == 0
    assert capsys.readouterr().out == "one.png: a red cat\ntwo.png: a red cat\n"
    assert Image.open("one.png").size == (16, 16)
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_several_prompts_give_numbered_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompts-file", "prompts.txt", "--prompt", "the moon", "--steps", "1", "--output", "many/p.png"]
    assert execute(["sample", "teacher", *arguments]) == 0
    pictures = sorted(str(path) for path in Path("many").iterdir())
    assert len(pictures) == 6
    assert capsys.readouterr().out.splitlines()[0] == f"{pictures[0]}: the moon"


def test_an_exported_student_is_no_teacher(trained: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["export", "run", "--output", "student"]) == 0
    capsys.readouterr()
    said = refused(capsys, execute(["train", str(trained / "tiny.yaml"), "backbone.model=./student"]))
    assert "is a student that fewstep exported" in said
    assert not (here / "runs").exists()


def test_a_pipeline_of_an_unsupported_class_is_refused(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = here / "teacher" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusion3Pipeline", "AudioLDMPipeline"))
    said = refused(capsys, execute(["train", str(trained / "tiny.yaml"), "backbone.model=./teacher"]))
    assert "is a AudioLDMPipeline, but backbone.kind=sd3 drives a StableDiffusion3Pipeline" in said
    assert not (here / "runs").exists()


@pytest.mark.parametrize("command", ["train", "export", "sample"])
def test_a_place_that_cannot_be_written_is_refused(
    command: str, trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "train": ["train", str(trained / "tiny.yaml"), "--root", "tiny.yaml/runs"],
        "export": ["export", "run", "--output", "tiny.yaml/student"],
        "sample": ["sample", "teacher", "--prompt", "x", "--steps", "1", "--output", "tiny.yaml/p.png"],
    }
    before = content(here)
    said = refused(capsys, execute(arguments[command]))
    assert "tiny.yaml" in said
    assert content(here) == before
