"""The commands that look at runs."""

import json
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from tests.runs.made import line, made_run


def test_runs_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path, lines=[line(3, fake_score=0.5, ca=float("nan"))], name="long-name")
    broken = made_run(tmp_path, name="b\x1b[2J")
    (broken / "run.json").write_text("{")
    assert execute(["runs", str(tmp_path), "--sort", "name"]) == 0
    head, damaged, whole = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "recipe", "state", "updates", "last", "step", "losses"]
    assert damaged.startswith("b\\x1b[2J   -       damaged  -/-      -          run.json: it is not valid JSON")
    assert whole.startswith("long-name  digits  stopped  2/10     0 s        fake_score 0.5  ca nan")


def test_runs_as_json_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path, lines=[line(3, fake_score=0.5, ca=float("nan"))])
    assert execute(["runs", str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["path"], told["losses"], told["updates"]) == (str(folder), {"fake_score": 0.5, "ca": None}, 2)


def test_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"There is no run in {tmp_path}.\n"


def test_a_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path, "student.lr=2e-5", lines=[line(3, fake_score=0.5)], saved=[4])
    (folder / "checkpoints" / "latest").write_text("step-00000004\n")
    assert execute(["show", str(folder)]) == 0
    printed = capsys.readouterr().out
    for told in (
        f"recipe       digits, settings {folder.name.removeprefix('digits-')}\n",
        "state        stopped, 2 of 10 updates, last step 0 s ago\n",
        "differs      student.lr: 0.0001 -> 2e-05\n             budget.student_updates: ",
        "figures      num_anchors 3\n             loss/fake_score 0.5\n",
        "checkpoints  step-00000004 (latest)\n",
        "evaluation   none\n",
    ):
        assert told in printed


def test_a_run_as_json_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path, lines=[line(3, ca=float("inf"))])
    assert execute(["show", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["row"]["updates"], told["figures"]["loss/ca"], told["latest"]) == (2, None, None)


def test_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        made_run(tmp_path, *overrides, lines=[line(3, ca=loss)], name=name)
        for name, loss, overrides in (("a", 0.5, ["student.lr=2e-5"]), ("b", 0.25, []))
    ]
    assert execute(["compare", *map(str, runs), "--output", str(tmp_path / "c.png")]) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "setting     a      b\n"
        "student.lr  2e-05  0.0001\n"
        "\n"
        "figure   a                          b\n"
        "loss/ca  0.5, best 0.5 at update 2  0.25, best 0.25 at update 2\n"
    )
    assert printed.err == f"The curves are in {tmp_path / 'c.png'}.\n"
    assert (tmp_path / "c.png").is_file()


def test_a_comparison_as_json_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made_run(tmp_path, lines=[line(3, ca=0.5)], name=name) for name in "ab"]
    assert execute(["compare", *map(str, runs), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "runs": ["a", "b"],
        "settings": {},
        "figures": {"loss/ca": [{"last": 0.5, "best": 0.5, "update": 2.0}] * 2},
    }


def test_a_file_of_another_ending_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["compare", "a", "b", "--output", str(tmp_path / "c.gif")]) == 2
    assert "must end in .png or .html" in capsys.readouterr().err


def test_that_nothing_differs_and_nothing_was_measured_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["compare", *(str(made_run(tmp_path, name=name)) for name in "ab")]) == 0
    assert capsys.readouterr().out == "No setting differs.\n\nThere are no figures yet.\n"


def test_one_run_is_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["compare", str(made_run(tmp_path))]) == 2
    assert capsys.readouterr().err == "fewstep: There is one run to compare; name two or more.\n"


def test_one_run_is_drawn_where_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path, lines=[line(step, ca=0.5) for step in range(4)])
    assert execute(["show", str(folder), "--output", str(tmp_path / "report.html")]) == 0
    assert "state        stopped, 2 of 10 updates" in capsys.readouterr().out
    assert "<td>loss/ca</td><td>0.5, best 0.5 at update 2</td>" in (tmp_path / "report.html").read_text()
