"""A disk that is full or may not be written, through the command line, before and during the training.

Where a file system can be mounted the disk is a real one of a few kilobytes; elsewhere those tests are skipped, and the
ones with an error raised in place of the disk's remain, and those in which no file may grow larger than so many bytes,
which every writer meets as it meets a full disk.
"""

import errno
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp

from fewstep.cli.main import execute
from fewstep.runs.checkpoint import verify_checkpoint
from fewstep.runs.places import checkpoints
from tests.evaluation.tiny_models import write_embedded_student
from tests.scores import tiny_clip
from tests.training.test_run import assert_same_state
from tests.training.tiny_run import recipe, run, saved_state, write_inputs

ONE_AT_A_TIME = ("checkpoint.every=1", "checkpoint.keep_last=1", "report.log_every=1")


class SmallDisk:
    """A file system in memory that ends where it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def mount(self, kilobytes: int) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], capture_output=True, check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk")
    if not made.mount(64):
        pytest.skip("no file system can be mounted here")
    yield made
    made.unmount()


def told(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The sentence of a command that ended with 2."""
    printed = capsys.readouterr().err
    assert code == 2, printed
    assert "Traceback" not in printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("fewstep: ")
    return last


def size_of(folder: Path) -> int:
    """Kilobytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1024


def test_no_space_for_the_runs_folder_is_told(
    tmp_path: Path, disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk.path / "filler").write_bytes(b"\0" * (64 * 1024))
    said = told(capsys, execute(["train", str(write_inputs(tmp_path)), "--output", str(disk.path / "run")]))
    assert "no space left on the disk. Free some space" in said
    assert [path.name for path in disk.path.iterdir()] == ["filler"]


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    finished: Path, disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoints(finished / "whole" / "checkpoints")[-1]
    disk.remount(f"size={size_of(newest) * 3 // 2}k")  # one checkpoint and a half
    command = ["train", str(finished / "tiny.yaml"), *ONE_AT_A_TIME, "--output", str(disk.path / "run")]
    said = told(capsys, execute(command))
    assert "step-00000004 could not be written" in said
    assert "Free some space" in said
    (kept,) = (disk.path / "run" / "checkpoints").glob("step-*")
    assert kept.name == "step-00000002"
    verify_checkpoint(kept)
    disk.remount("size=100m")
    assert execute([*command, "--resume"]) == 0
    assert_same_state(saved_state(disk.path / "run"), saved_state(finished / "whole"))


def test_a_full_disk_during_the_training_is_the_users_error_and_the_run_goes_on_from_the_last_checkpoint(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = dcp.save

    def full_at_the_second(state: dict[str, Any], **options: Any) -> Any:
        if state["progress"]["step"] > 2:
            (Path(options["checkpoint_id"]) / "__0_0.distcp").write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(state, **options)

    command = ["train", str(finished / "tiny.yaml"), "checkpoint.every=1", "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(dcp, "save", full_at_the_second)
        said = told(capsys, execute(command))
    assert "step-00000004 could not be written (OSError: [Errno 28] No space left on device)" in said
    assert "go on with --resume" in said
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["latest", "step-00000002"]
    assert execute([*command, "--resume"]) == 0
    assert_same_state(saved_state(tmp_path / "run"), saved_state(finished / "whole"))


@pytest.mark.parametrize("command", ["train", "export", "sample"])
def test_a_file_system_that_is_read_only_is_told(
    command: str, finished: Path, disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.remount("ro")
    arguments = {
        "train": ["train", str(finished / "tiny.yaml"), "--root", str(disk.path / "runs")],
        "export": ["export", str(finished / "whole"), "--output", str(disk.path / "student")],
        "sample": ["sample", str(finished / "teacher"), "--prompt", "x", "--steps", "1"],
    }[command]
    arguments += ["--output", str(disk.path / "p.png")] if command == "sample" else []
    said = told(capsys, execute(arguments))
    assert "read-only" in said.lower()
    assert str(disk.path) in said
    assert list(disk.path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ENOSPC, "there is no space left on the disk"), (errno.EACCES, "you have no permission to write there")],
)
def test_what_the_disk_says_about_the_runs_folder_is_told(
    code: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # root may write anywhere, so the refusal stands in for the disk's
    make = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "closed":
            raise OSError(code, "refused", str(path))
        make(path, *arguments, **options)

    recipe_path = write_inputs(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    said = told(capsys, execute(["train", str(recipe_path), "--output", str(tmp_path / "closed")]))
    assert reason in said
    assert str(tmp_path / "closed") in said


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its run."""
    folder = tmp_path_factory.mktemp("trained")
    run(recipe(folder, "budget.student_updates=1"), folder / "run")
    return folder


@pytest.mark.parametrize(
    ("command", "num_bytes"),
    [
        ("export", 0),  # the first file, by json
        ("export", 2_000),  # by a tokenizer
        ("export", 40_000),  # by safetensors
        ("factors", 0),
        ("embed", 300),  # by safetensors, a shard
        ("train", 300),  # the settings
        ("train", 8_000),  # the embeddings that a training makes first
        ("train", 40_000),  # a checkpoint, by Python
        ("train", 100_000),  # a checkpoint, by torch's zip writer
        ("sample", 100),  # a picture
    ],
)
def test_a_file_that_may_not_grow_is_the_users_disk_whoever_writes_it(
    command: str, num_bytes: int, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = {
        "export": ["export", str(trained / "run"), "--output", str(out)],
        "factors": ["export", str(lora_run(tmp_path)), "--format", "lora", "--output", str(out)]
        if command == "factors"
        else [],
        "embed": ["embed", str(trained / "tiny.yaml"), "--root", str(out)],
        "train": ["train", str(trained / "tiny.yaml"), "--output", str(out / "run")],
        "sample": ["sample", str(trained / "teacher"), "--prompt", "x", "--steps", "1", "--output", str(out / "p.png")],
    }[command]
    capsys.readouterr()
    with largest_file(num_bytes):
        code = execute(arguments)
    said = told(capsys, code)
    assert str(out) in said
    assert any(words in said for words in ("may not grow that large", "File too large", "unexpected pos"))
    left = [path for path in tmp_path.rglob("*") if path.name.startswith((".exporting-", ".saving-", ".unfinished"))]
    assert left == []


def lora_run(folder: Path) -> Path:
    lora = ["student.weights.kind=lora", "student.weights.rank=2", "fake_score.weights.kind=lora"]
    run(recipe(folder, "budget.student_updates=1", *lora, "fake_score.weights.rank=2"), folder / "lora")
    return folder / "lora"


PICTURES = ("--teacher", "fewstep:digits,steps=2", "--num-prompts", "2", "--ladder", "0", "--device", "cpu")
SCORES = ("--metrics", "digits", "vendi", "--set", "vendi.extractor=digits")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation and the student that it is about."""
    folder = tmp_path_factory.mktemp("evaluated")
    student = write_embedded_student(folder / "student")
    assert execute(["evaluate", str(student), *PICTURES, *SCORES, "--output", str(folder / "done")]) == 0
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("num_bytes", [300, 3_000])
def test_an_evaluation_that_the_disk_stops_is_told_and_loses_nothing(
    num_bytes: int, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Path(shutil.copytree(evaluated / "done", tmp_path / "done"))
    whole = content(done)
    command = ["evaluate", str(evaluated / "student"), *PICTURES, *SCORES]
    capsys.readouterr()
    with largest_file(num_bytes):
        code = execute([*command, "--output", str(done)])
        said = told(capsys, code)
        assert str(done) in said
        assert str(tmp_path / "new") in told(capsys, execute([*command, "--output", str(tmp_path / "new")]))
    left = content(done)
    assert {name for name in whole if whole[name] and not left.get(name)} == set()
    assert execute([*command, "--output", str(done)]) == 0
    assert {name: left for name, left in content(done).items() if name.suffix == ".csv"} == {
        name: before for name, before in whole.items() if name.suffix == ".csv"
    }


@pytest.mark.parametrize("num_bytes", [0, 40_000])
def test_a_demo_that_the_disk_stops_is_told(num_bytes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with largest_file(num_bytes):
        code = execute(["demo", "--output", str(tmp_path / "demo")])
    assert str(tmp_path / "demo") in told(capsys, code)


@pytest.mark.parametrize("num_bytes", [0, 5_000])
def test_a_conversion_that_the_disk_stops_is_told_and_leaves_nothing(
    num_bytes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_clip.write_clip(tmp_path / "clip")
    with largest_file(num_bytes):
        code = execute(["evaluate", "convert", "clipscore", str(tmp_path / "clip"), "--output", str(tmp_path / "out")])
    assert str(tmp_path / "out") in told(capsys, code)
    assert not (tmp_path / "out").exists()
