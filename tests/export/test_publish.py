"""Uploading an export, or saying what would go; nothing here reaches a network."""

from pathlib import Path
from typing import Any

import pytest

from fewstep.cli.main import execute
from fewstep.errors import ConfigError
from fewstep.export.publish import Upload, require_repository, upload
from tests.training.tiny_run import recipe, run


class Hub:
    """A hub that notes what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repository: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((repository, options))

    def upload_folder(self, **options: Any) -> None:
        self.asked.append((options["repo_id"], options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / "transformer").mkdir(parents=True)
    (tmp_path / "out" / "README.md").write_text("# out\n")
    (tmp_path / "out" / "transformer" / "weights.safetensors").write_bytes(bytes(1234))
    return tmp_path / "out"


def test_a_folder_goes_to_its_repository_which_is_made(folder: Path) -> None:
    hub = Hub()
    done = upload(folder, "anna/student", api=hub)
    assert [(name, sorted(options)) for name, options in hub.asked] == [
        ("anna/student", ["exist_ok", "repo_type"]),
        ("anna/student", ["commit_message", "folder_path", "repo_id"]),
    ]
    assert hub.asked[1][1]["folder_path"] == str(folder)
    assert done.files == (("README.md", 6), ("transformer/weights.safetensors", 1234))


def test_what_would_go_is_listed_with_its_bytes(folder: Path) -> None:
    assert str(Upload.of(folder, "anna/student")).splitlines() == [
        "              6 bytes  README.md",
        "          1,234 bytes  transformer/weights.safetensors",
        "          1,240 bytes  https://huggingface.co/anna/student",
    ]


@pytest.mark.parametrize("name", ["student", "anna/", "a/b/c", "anna/../x", "https://huggingface.co/a/b", "anna/a b"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository of the hub; give USER/NAME"):
        require_repository(name)


def test_a_hub_that_does_not_take_it_leaves_the_export_and_says_how_to_go_on(folder: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"The export is in .*out, but anna/student did not take it \(no network\).* hf upload anna/student",
    ):
        upload(folder, "anna/student", api=Hub(ConnectionError("no network")))
    assert (folder / "README.md").is_file()


def test_a_dry_run_exports_and_uploads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(tmp_path, "budget.student_updates=1"), tmp_path / "run")
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda *_, **__: pytest.fail("it uploads"))
    arguments = ["export", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--push", "anna/student"]
    capsys.readouterr()
    assert execute([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Would go to the hub:\n" in said and "bytes  model_index.json" in said
    assert said.endswith("bytes  https://huggingface.co/anna/student\n")
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_a_dry_run_of_no_upload_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["export", "run", "--output", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "--dry-run prints what --push would upload; give --push USER/NAME too" in capsys.readouterr().err


def test_a_wrong_repository_is_told_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["export", "run", "--output", str(tmp_path / "out"), "--push", "student"]) == 2
    assert "is no repository of the hub" in capsys.readouterr().err
