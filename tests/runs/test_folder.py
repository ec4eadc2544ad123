"""The run folder: whose it is, who may write it, and what it says of itself."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fewstep
from fewstep.config import RunConfig, config_hash, load_recipe
from fewstep.errors import CheckpointError, ConfigError
from fewstep.runs.folder import RunFolder, read_config
from tests.config.outside_term import Install, add


def settings(*overrides: str) -> RunConfig:
    return load_recipe("digits", overrides).config


def make(root: Path, *overrides: str, resume: bool = False, path: Path | None = None) -> RunFolder:
    return RunFolder.create(root, "digits", settings(*overrides), resume=resume, path=path)


def refusal(root: Path, *overrides: str, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(root, *overrides, **arguments)
    return str(caught.value)


def test_the_folder_is_named_by_recipe_and_hash(tmp_path: Path) -> None:
    with make(tmp_path / "runs") as folder:
        assert folder.path == tmp_path / "runs" / f"digits-{config_hash(settings())}"
        assert folder.path.is_dir()


def test_another_place_can_be_named(tmp_path: Path) -> None:
    with make(tmp_path, path=tmp_path / "a" / "b") as folder:
        assert folder.path == tmp_path / "a" / "b"


def test_the_settings_come_back_as_they_were(tmp_path: Path) -> None:
    overrides = ["schedule.kind=fixed", "terms.cdm=null", "student.lr=3e-5", "parallel.threads=1"]
    with make(tmp_path, *overrides) as folder:
        pass
    assert RunFolder.open(folder.path).config == settings(*overrides)


def test_run_facts_name_recipe_hash_versions_and_start(tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        facts = folder.facts
    assert (facts["recipe"], facts["config_hash"]) == ("digits", config_hash(settings()))
    (session,) = facts["sessions"]
    assert session["fewstep"] == fewstep.__version__
    assert session["packages"]["torch"].startswith("2.")
    assert session["started"].endswith("+00:00")


def test_a_start_waits_for_somebody_who_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("fewstep.runs.folder._PATIENCE", 60.0)
    make(tmp_path).close()
    (lock,) = tmp_path.glob("*/.lock")
    looking = os.open(lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()
    make(tmp_path, resume=True).close()


def test_an_existing_run_is_refused_without_resume(tmp_path: Path) -> None:
    make(tmp_path).close()
    said = refusal(tmp_path)
    assert "exists already; go on with it with --resume, delete it, or change a setting" in said


def test_resume_goes_on_and_notes_the_new_session(tmp_path: Path) -> None:
    make(tmp_path).close()
    with make(tmp_path, resume=True) as folder:
        assert len(folder.facts["sessions"]) == 2


def test_resume_starts_when_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with make(tmp_path, resume=True) as folder:
        assert len(folder.facts["sessions"]) == 1


def test_resume_takes_a_new_budget_and_writes_it_down(tmp_path: Path) -> None:
    make(tmp_path).close()
    make(tmp_path, "budget.student_updates=7", resume=True).close()
    (folder,) = tmp_path.iterdir()
    assert read_config(folder).budget.student_updates == 7


def test_resume_refuses_another_configs_folder_and_says_what_differs(tmp_path: Path) -> None:
    make(tmp_path, "terms.ca.scale=2", path=tmp_path / "run").close()
    said = refusal(tmp_path, "student.lr=3e-4", "terms.ca.scale=5", resume=True, path=tmp_path / "run")
    assert said == (
        f"{tmp_path / 'run'} belongs to a run with other settings, so it cannot be resumed with these: "
        "terms.ca.scale: 2.0 -> 5.0; student.lr: 0.0001 -> 0.0003. Resume it with its own, or start a new run."
    )


def test_a_refused_resume_leaves_the_settings_alone(tmp_path: Path) -> None:
    make(tmp_path, path=tmp_path / "run").close()
    before = (tmp_path / "run" / "config.json").read_text()
    refusal(tmp_path, "student.lr=3e-4", resume=True, path=tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_other_files_is_refused_and_kept(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    said = refusal(tmp_path, path=tmp_path / "mine", resume=resume)
    assert said == f"{tmp_path / 'mine'} exists and is not the folder of a run; choose another place for the run."
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with make(tmp_path, path=tmp_path / "empty") as folder:
        assert (folder.path / "config.json").is_file()


def test_a_start_that_was_killed_before_its_settings_were_whole_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".lock", ".config.json.unfinished"):
        (tmp_path / "run" / name).write_text("{")
    with make(tmp_path, path=tmp_path / "run", resume=True) as folder:
        assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "config.json", "run.json"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not the folder of a run" in refusal(tmp_path, path=tmp_path / "file")
    assert "a part of that path is a file, not a folder" in refusal(tmp_path, path=tmp_path / "file" / "run")


def test_a_second_process_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.runs.test_folder import refusal;"
        "print(refusal(Path(sys.argv[1]), resume=True))"
    )
    with make(tmp_path) as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=_environment(),
        )
    said = f"Another process is writing the run {folder.path}; wait for it or stop it, then use --resume."
    assert done.stdout.strip() == said


def test_a_closed_run_can_be_resumed_at_once(tmp_path: Path) -> None:
    with make(tmp_path):
        pass
    with make(tmp_path, resume=True) as folder:
        assert folder.config == settings()


def test_a_start_that_failed_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"), make(tmp_path):
        raise ConfigError("no such model")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_first_steps_keeps_the_folder(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.metrics.write_text('{"step": 0}\n')
    with pytest.raises(ConfigError, match="late"), folder:
        raise ConfigError("late")
    assert folder.metrics.is_file()


def test_a_failed_resume_keeps_the_folder(tmp_path: Path) -> None:
    make(tmp_path).close()
    with pytest.raises(ConfigError, match="no such model"), make(tmp_path, resume=True) as folder:
        raise ConfigError("no such model")
    assert folder.path.is_dir()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "there is no space left on the disk. Free some space, or choose another place."),
        (errno.EACCES, "you have no permission to write there. Change the permissions, or choose another place."),
        (errno.EROFS, "the file system is read-only. Make it writable, or choose another place."),
    ],
)
def test_what_the_disk_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    def refuse(path: Path, *arguments: Any, **keywords: Any) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = refusal(tmp_path / "runs")
    assert said.endswith(f"cannot be written: {reason}")


def test_no_space_while_the_settings_are_written_keeps_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path).close()
    (folder,) = tmp_path.iterdir()
    before = (folder / "config.json").read_text()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    assert "there is no space left on the disk" in refusal(tmp_path, "budget.student_updates=3", resume=True)
    assert (folder / "config.json").read_text() == before


def test_opening_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no run \(it has no config.json\); name a run's folder, such as runs/"
    ):
        RunFolder.open(tmp_path)


def test_opening_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing is not a folder; name a run's folder"):
        RunFolder.open(tmp_path / "nothing")


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"backbone": ')
    with pytest.raises(CheckpointError, match=r"config.json is damaged \(.*\); the run it belongs to cannot be opened"):
        RunFolder.open(tmp_path)


WRONG = {
    "a list": "[]",
    "null": "null",
    "nothing": "",
    "brackets": "[" * 100_000,
    "braces": '{"a":' * 100_000,
    "no text": b"\xff\xfe",
    "a large number": '{"seed": ' + "9" * 5_000 + "}",
}


@pytest.mark.parametrize("content", [*WRONG, "an empty mapping"])
def test_settings_of_another_shape_are_one_sentence(content: str, tmp_path: Path) -> None:
    found = WRONG.get(content, "{}")
    (tmp_path / "config.json").write_bytes(found.encode() if isinstance(found, str) else found)
    with pytest.raises(
        CheckpointError, match=r"config.json (is damaged|holds settings that fewstep does not know) \("
    ) as c:
        RunFolder.open(tmp_path)
    assert len(str(c.value)) < 1_000


FACTS = {
    "no sessions": '{"recipe": "x", "config_hash": "y", "sessions": []}',
    "no facts": "{}",
    "a session of another type": '{"recipe": "x", "config_hash": "y", "sessions": [3]}',
    "a session without a version": '{"recipe": "x", "config_hash": "y", "sessions": [{}]}',
    "sessions of another type": '{"recipe": "x", "config_hash": "y", "sessions": {}}',
    "a name of another type": '{"recipe": [], "config_hash": "y", "sessions": [{"fewstep": "1"}]}',
}


@pytest.mark.parametrize("content", [*WRONG, *FACTS])
def test_facts_of_another_shape_are_one_sentence(content: str, tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        pass
    found = {**WRONG, **FACTS}[content]
    (folder.path / "run.json").write_bytes(found.encode() if isinstance(found, str) else found)
    with pytest.raises(CheckpointError, match=r"run.json is damaged \(.*\); the run it belongs to cannot be opened"):
        make(tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"run.json is damaged"):
        RunFolder.open(folder.path).facts  # noqa: B018 (asked for its error)


@pytest.mark.parametrize("place", ["metrics.jsonl", "checkpoints/step-00000001", "sheets"])
def test_a_run_with_a_link_is_not_resumed(place: str, tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        pass
    (folder.path / place).parent.mkdir(exist_ok=True)
    (folder.path / place).symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{place} is a symbolic link, .* in its own folder only. Put a file"):
        make(tmp_path, resume=True)


@pytest.mark.parametrize("place", ["checkpoints", "sheets", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_what_a_run_writes_is_of_its_kind_before_it_goes_on(place: str, kind: str, tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        pass
    {"file": Path.touch, "folder": Path.mkdir, "pipe": os.mkfifo}[kind](folder.path / place)
    own = "file" if place == "metrics.jsonl" else "folder"
    if kind == own:
        make(tmp_path, resume=True).close()
        return
    with pytest.raises(CheckpointError, match=rf"{place} is no {own}, which a run writes there; move it away"):
        make(tmp_path, resume=True)


def test_settings_of_another_version_are_told(tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        pass
    stored = json.loads((folder.path / "config.json").read_text())
    stored["student"]["momentum"] = 0.9
    (folder.path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(
        CheckpointError, match=r"settings that fewstep does not know \(student.momentum: .*another version"
    ):
        RunFolder.open(folder.path)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


OLD = Path(__file__).parent / "old"
"""Run folders from when the settings of ``memory`` lay in three places and were part of a run's name."""
SMALLER = ["memory.gradient_checkpointing=true", "memory.microbatch=1", "memory.offload={teacher: true, trained: true}"]


@pytest.mark.parametrize("name", ["digits-2803b407", "digits-a13147cf"])
@pytest.mark.parametrize("overrides", [[], SMALLER])
def test_a_run_of_the_old_layout_is_resumed_in_its_own_folder(tmp_path: Path, name: str, overrides: list[str]) -> None:
    shutil.copytree(OLD / name, tmp_path / name)
    with make(tmp_path, *overrides, resume=True) as folder:
        assert (folder.path, folder.facts["config_hash"]) == (tmp_path / name, name.removeprefix("digits-"))
        assert len(folder.facts["sessions"]) == 2
    assert RunFolder.open(tmp_path / name).config == settings(*overrides)


def test_the_settings_of_the_old_layout_are_read_where_they_are_now() -> None:
    memory = read_config(OLD / "digits-a13147cf").memory
    assert (memory.gradient_checkpointing, memory.keep_anchor_graph, memory.batch_frozen_calls) == (
        "selective",
        True,
        False,
    )
    assert (memory.microbatch, memory.offload.teacher, memory.prefetch, memory.compiled) == (4, True, 2, False)


@pytest.mark.parametrize(("written", "trackers"), [(True, None), (False, ()), (None, None)])
def test_tensorboard_of_the_old_layout_is_a_tracker_now(
    tmp_path: Path, written: bool | None, trackers: tuple[str, ...] | None
) -> None:
    shutil.copytree(OLD / "digits-2803b407", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["report"].pop("tensorboard")
    config["report"] |= {} if written is None else {"tensorboard": written}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path / "run").report.trackers == trackers


def test_of_two_old_runs_the_one_with_these_settings_is_resumed(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    selective = ["memory.gradient_checkpointing=selective", "memory.batch_frozen_calls=false"]
    with make(tmp_path, resume=True) as plain, make(tmp_path, *selective, resume=True) as other:
        assert (plain.path.name, other.path.name) == ("digits-2803b407", "digits-a13147cf")


def test_a_run_moves_to_a_smaller_gpu_under_the_same_name(tmp_path: Path) -> None:
    with make(tmp_path) as first:
        pass
    with make(tmp_path, *SMALLER, resume=True) as second:
        assert second.path == first.path
    assert RunFolder.open(first.path).config.memory == settings(*SMALLER).memory


def test_a_run_with_a_term_of_a_package_is_read_again(tmp_path: Path, install: Install) -> None:
    add(install)
    with make(tmp_path, "terms.attract.strength=3.0") as folder:
        assert folder.facts["sessions"][-1]["plugins"] == {"terms.attract": "outside-term 1.0"}
    assert RunFolder.open(folder.path).config == settings("terms.attract.strength=3.0")


def test_a_run_whose_package_is_gone_says_which_it_was(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = add(install)
    with make(tmp_path, "terms.attract={}") as folder:
        pass
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(folder.path)
    assert str(caught.value) == (
        f"{folder.path / 'config.json'} has the setting terms.attract of the package outside-term 1.0, which is not "
        "installed; install it to open the run."
    )


def test_a_run_of_this_package_alone_names_no_other(tmp_path: Path) -> None:
    with make(tmp_path) as folder:
        assert "plugins" not in folder.facts["sessions"][-1]
