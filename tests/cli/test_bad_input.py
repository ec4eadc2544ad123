"""Bad input through the real command line: exit code 2, one sentence, no traceback, and every file as it was."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from fewstep.seals import MEMORY
from tests.training.tiny_run import write_inputs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, prompts, tiny.yaml, the run of one update in ``run`` and its student in ``student``."""
    folder = tmp_path_factory.mktemp("inputs")
    recipe = write_inputs(folder)
    assert execute(["train", str(recipe), "budget.student_updates=1", "--output", str(folder / "run")]) == 0
    assert execute(["export", str(folder / "run"), "--output", str(folder / "student")]) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    copy = tmp_path / "here"
    shutil.copytree(trained, copy)
    monkeypatch.chdir(copy)
    return copy


# locks hold nothing, the start of a resumed run is noted before its checkpoint is read, and so are the hashes of files
# that have not been touched for two seconds, which those of a slow machine have not
NOTED = {".lock", "run.json", "config.json", MEMORY}


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but those in which something is noted."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOTED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def damage(folder: Path) -> None:
    """Cut the largest file of the run's checkpoint off."""
    (checkpoint,) = (folder / "run" / "checkpoints").glob("step-*")
    largest = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])


def empty_prompts(folder: Path) -> None:
    (folder / "empty.txt").write_text("\n  \n")


def another_class(folder: Path) -> None:
    index = folder / "teacher" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusion3Pipeline", "AudioLDMPipeline"))


def distilled_name(folder: Path) -> None:
    (folder / "teacher").rename(folder / "stable-diffusion-3.5-large-turbo")


def nothing(folder: Path) -> None:
    """Nothing to prepare."""


@dataclass(frozen=True)
class Case:
    """A command line that is refused, and a part of the sentence that says why. RECIPE stands for the recipe's path."""

    arguments: str
    said: str
    prepare: Callable[[Path], None] = nothing


CASES = {
    "unknown recipe": Case("train digts", "There is no recipe 'digts'. Did you mean digits"),
    "unknown recipe to show": Case("recipe show digts", "There is no recipe 'digts'. Did you mean digits"),
    "unknown key": Case("train RECIPE student.evry=2", "did you mean student.every?"),
    "wrong type": Case("train RECIPE batch=many", "batch is 'many', from the command line; it must be a whole number."),
    "fraction in place of a number": Case("train RECIPE budget.student_updates=1.5", "budget.student_updates is 1.5"),
    "missing prompt file": Case("train RECIPE prompts.path=p.txt", "p.txt does not exist; check its path"),
    "empty prompt file": Case("train RECIPE prompts.path=empty.txt", "There is no prompt in", empty_prompts),
    "run of other settings": Case(
        "train RECIPE student.lr=5e-4 --output run --resume", "run belongs to a run with other settings"
    ),
    "run that exists": Case("train RECIPE --output run", "The run run exists already; go on with it with --resume"),
    "folder that holds no run": Case("train RECIPE --output teacher --resume", "teacher exists and is not the folder"),
    "damaged checkpoint to resume": Case(
        "train RECIPE budget.student_updates=2 --output run --resume", "holds 1000 bytes instead of", damage
    ),
    "damaged checkpoint to export": Case("export run --output out", "holds 1000 bytes instead of", damage),
    "export over something": Case("export run --output student", "student exists and is not an empty folder"),
    "unsupported class to train": Case(
        "train RECIPE backbone.model=./teacher --root runs",
        "is a AudioLDMPipeline, but backbone.kind=sd3",
        another_class,
    ),
    "unsupported class to draw": Case("sample teacher --prompt x --output p.png", "AudioLDMPipeline", another_class),
    "our own student": Case("train RECIPE backbone.model=./student", "is a student that fewstep exported"),
    "distilled model": Case(
        "train RECIPE backbone.model=./stable-diffusion-3.5-large-turbo",
        "stable-diffusion-3.5-large-turbo",
        distilled_name,
    ),
    "file in place of the runs": Case("train RECIPE --root prompts.txt", "prompts.txt"),
    "file in place of the export": Case("export run --output prompts.txt", "prompts.txt"),
    "file above the export": Case("export run --output prompts.txt/student", "prompts.txt"),
    "name beyond all bounds": Case(f"check {'a' * 5000}", "is neither a local folder nor a Hugging Face repository"),
    "file above the picture": Case("sample student --prompt x --output prompts.txt/p.png", "prompts.txt"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_told_in_one_sentence_and_nothing_is_lost(
    case: Case, trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.prepare(here)
    before = content(here)
    # the recipe stays beside its prompts: their place is one of its settings
    code = execute(case.arguments.replace("RECIPE", str(trained / "tiny.yaml")).split())
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert "Traceback" not in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("fewstep: ")
    assert case.said in printed.err
    assert content(here) == before


def test_several_wrong_settings_are_told_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["train", "tiny.yaml", "batch=0", "student.evry=2", "terms.dm.floor=-1"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("batch", "student.evry", "terms.dm.floor"))
    assert "Traceback" not in said


def test_a_recipe_that_is_no_yaml_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.yaml").write_text("student: {lr: 1e-4\n")
    assert execute(["train", "broken.yaml"]) == 2
    said = capsys.readouterr().err
    assert "broken.yaml" in said
    assert "Traceback" not in said


def test_damaged_facts_of_a_run_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/config.json").write_text(json.dumps({"batch": 4})[:-1])
    assert execute(["export", "run", "--output", "out"]) == 2
    assert "config.json is damaged" in capsys.readouterr().err
    assert not Path("out").exists()
