"""The commands on real input: what they print, and what they refuse."""

from pathlib import Path

import pytest

from fewstep.cli.main import execute
from fewstep.config import load_recipe, recipe_names
from fewstep.config.recipe import validate
from fewstep.config.yaml_text import parse_yaml_mapping


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with 2; it never shows a traceback, and leaves no file."""
    assert execute(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fewstep: ")
    assert "Traceback" not in printed
    return printed.removeprefix("fewstep: ").rstrip("\n")


def test_the_list_of_recipes_names_each_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["recipes"]) == 0
    printed = capsys.readouterr().out
    for name in recipe_names():
        assert f"\n{name} " in f"\n{printed}"
    assert "CDM on the embedded teacher" in printed


def test_a_recipe_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["recipe", "show", "digits-dmd2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# digits-dmd2: ")
    assert "base: digits\n" in printed


def test_a_resolved_recipe_is_a_complete_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["recipe", "show", "digits-dmd2", "student.lr=1e-5", "--resolved"]) == 0
    settings = parse_yaml_mapping(capsys.readouterr().out, source="the output")
    assert validate(settings) == load_recipe("digits-dmd2", ["student.lr=1e-5"]).config


def test_a_recipe_of_ones_own_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("base: digits\nbatch: 4\n")
    assert execute(["recipe", "show", "mine.yaml"]) == 0
    assert capsys.readouterr().out == "base: digits\nbatch: 4\n"


def test_an_unknown_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "train", "digts").startswith("There is no recipe 'digts'. Did you mean digits")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "digits", "student.evry=2")
    assert said.endswith("did you mean student.every?")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_type_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "digits", "batch=many")
    assert said == "batch is 'many', from the command line; it must be a whole number."
    assert list(tmp_path.iterdir()) == []


def test_a_missing_prompt_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "digits", "prompts={kind: file, path: p.txt}")
    assert said == (
        f"The prompt file {tmp_path / 'p.txt'} does not exist; check its path. `fewstep prompts` lists sets that a "
        "recipe can name instead."
    )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("\n")
    said = refused(capsys, "train", "digits", "prompts={kind: file, path: p.txt}")
    assert said == f"There is no prompt in {tmp_path / 'p.txt'}; a run needs at least one that is not blank."
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "digits", "backbone.model=./nothing")
    assert said.startswith(f"{tmp_path / 'nothing'} is not a folder.")
    assert list(tmp_path.iterdir()) == []


def test_exporting_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    said = refused(capsys, "export", "folder", "--output", "out")
    assert said.startswith("folder holds no run")
    assert not (tmp_path / "out").exists()


def test_drawing_without_a_prompt_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "sample", "anything", "--output", "p.png")
    assert said == "There is nothing to draw: give --prompt 'a text', or --prompts-file FILE."


def test_drawing_with_a_missing_prompts_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "sample", "anything", "--prompts-file", "p.txt", "--output", "p.png").startswith(
        "The prompt file p.txt does not exist"
    )
