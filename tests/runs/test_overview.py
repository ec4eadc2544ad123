"""All runs of a folder at a glance: what is told of each, and how little is read for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewstep.config.recipe import load_recipe
from fewstep.errors import ConfigError
from fewstep.runs.folder import RunFolder
from fewstep.runs.metrics import END_BYTES
from fewstep.runs.overview import RunRow, list_runs, read_row, sorted_rows
from tests.runs.made import line, made_run

LINES = [line(4, fake_score=0.5), line(5, fake_score=0.25, ca=2.0), line(6, fake_score=0.75)]


def test_a_row_tells_recipe_updates_losses_and_the_age_of_the_last_step(tmp_path: Path) -> None:
    folder = made_run(tmp_path, lines=LINES, saved=[2, 4])
    os.utime(folder / "metrics.jsonl", (1000, 1000))
    assert list_runs(tmp_path, now=1090.0) == [
        RunRow(folder, "stopped", "digits", 3, 10, {"fake_score": 0.75, "ca": 2.0}, 90.0)
    ]


def test_a_run_is_done_when_its_last_step_is_saved(tmp_path: Path) -> None:
    (unsaved, done) = (made_run(tmp_path, lines=[line(19)], saved=saved, name=str(saved[0])) for saved in ([18], [20]))
    assert [(read_row(folder).state, read_row(folder).updates) for folder in (unsaved, done)] == [
        ("stopped", 10),
        ("done", 10),
    ]


def test_a_run_is_running_while_a_process_writes_it(tmp_path: Path) -> None:
    config = load_recipe("digits").config
    with RunFolder.create(tmp_path, "digits", config) as folder:
        row = read_row(folder.path)
        assert (row.state, row.updates, row.idle_seconds) == ("running", 0, None)
    assert read_row(folder.path).state == "stopped"
    RunFolder.create(tmp_path, "digits", config, resume=True).close()


def test_a_run_of_the_old_layout_is_listed() -> None:
    rows = list_runs(Path(__file__).parent / "old")
    assert [(row.name, row.problem) for row in rows] == [("digits-2803b407", None), ("digits-a13147cf", None)]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", b"", "config.json: it is not valid JSON"),
        ("config.json", b'{"budget": {"student_updates": "many"}}', "config.json: budget.student_updates is 'many'"),
        ("config.json", None, "config.json: it is missing"),
        ("run.json", b"[" * 100_000, "run.json: it is not valid JSON"),
        ("run.json", b" " * (2**20 + 1), "run.json: it has 1048577 bytes"),
        ("run.json", None, "run.json: it is missing"),
        ("metrics.jsonl", b'{"step": 1}\n\xff\xfe\n', "metrics.jsonl: it is not valid JSON"),
        ("checkpoints", b"a file", None),
        ("checkpoints/other/manifest.json", b"{}", "is a checkpoint, but that is no checkpoint's name"),
    ],
)
def test_a_damaged_folder_is_a_row_that_says_so_and_the_others_are_listed(
    file: str, content: bytes | None, problem: str | None, tmp_path: Path
) -> None:
    whole, damaged = (made_run(tmp_path, lines=LINES, name=name) for name in ("whole", "damaged"))
    (damaged / file).parent.mkdir(parents=True, exist_ok=True)
    (damaged / file).unlink() if content is None else (damaged / file).write_bytes(content)
    found = {row.path: row for row in list_runs(tmp_path)}
    assert (found[whole].state, len(found)) == ("stopped", 2)
    assert found[damaged].state == ("stopped" if problem is None else "damaged")
    assert (problem or "") in (found[damaged].problem or "")


def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    made_run(tmp_path, name="run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("config.json")
    assert [row.name for row in list_runs(tmp_path)] == ["run"]


def test_a_run_that_is_named_itself_is_its_only_row(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    assert list_runs(folder) == list_runs(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none is not a folder; name the one that holds the runs"):
        list_runs(tmp_path / "none")


ROWS = [
    RunRow(Path("b"), "done", "x", 5, 9, idle_seconds=20.0),
    RunRow(Path("c"), "damaged", problem="gone"),
    RunRow(Path("a"), "stopped", "z", 7, 9, idle_seconds=30.0),
]


@pytest.mark.parametrize(
    ("key", "names"), [("age", "bac"), ("name", "abc"), ("recipe", "bac"), ("state", "cba"), ("updates", "abc")]
)
def test_rows_are_sorted_and_those_that_say_nothing_come_last(key: str, names: str) -> None:
    assert "".join(row.name for row in sorted_rows(ROWS, key)) == names  # type: ignore[arg-type]


# --- a thousand of them

LOOKING = """
import json, sys
from fewstep.cli.main import execute
opened, (few, many) = [], sys.argv[1:]
def taken():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
assert execute(["runs", few]) == 0
sys.addaudithook(lambda event, told: opened.append(str(told[0])) if event == "open" else None)
before = taken()
assert execute(["runs", many, "--json"]) == 0
read = taken() - before
print(json.dumps({
    "opened": [name for name in opened if name.startswith(many)], "read": read,
    "heavy": [name for name in ("torch", "diffusers", "numpy", "PIL") if name in sys.modules],
}), file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what the system says was read")
def test_a_thousand_runs_are_listed_from_small_files_and_the_ends_of_large_ones(tmp_path: Path) -> None:
    one = made_run(tmp_path / "few", lines=[line(step, ca=0.5) for step in range(20_000)])
    size = (one / "metrics.jsonl").stat().st_size
    for number in range(1000):
        folder = tmp_path / "many" / f"run-{number:04d}"
        (folder / "checkpoints" / "step-00000002").mkdir(parents=True)
        for name in ("config.json", "run.json", "metrics.jsonl", ".lock"):
            os.link(one / name, folder / name)
        os.link(one / "metrics.jsonl", folder / "checkpoints" / "step-00000002" / "__0_0.distcp")
    command = [sys.executable, "-c", LOOKING, str(tmp_path / "few"), str(tmp_path / "many")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stderr.splitlines()[-1])
    assert done.stdout.count('"updates": 10000') == 1000
    assert told["heavy"] == []
    assert {Path(name).name for name in told["opened"]} == {"config.json", "run.json", "metrics.jsonl", ".lock"}
    assert len(told["opened"]) == 4000
    small = sum((one / name).stat().st_size for name in ("config.json", "run.json"))
    # the system also counts what the command reads about itself
    assert size > 100 * END_BYTES and told["read"] <= 1000 * (small + END_BYTES) + 100_000


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (1e6, "11 d"), (1e9, "11574 d")]
)
def test_an_age_has_one_unit(seconds: float, told: str) -> None:
    assert RunRow(Path("run"), "running", idle_seconds=seconds).age == told
