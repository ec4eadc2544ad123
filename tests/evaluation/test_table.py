"""The table: values, paired differences, and the files written from it."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fewstep.errors import CheckpointError, ConfigError
from fewstep.evaluation.comparison import compare_folders
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.report import report_of
from fewstep.evaluation.results import as_markdown, write_results
from fewstep.evaluation.scoring import Scored, score
from fewstep.evaluation.table import Table, make_table
from tests.evaluation.pictures import Brightness, Darkness, Spread, paint, task_of

TASK = task_of(*(f"prompt <{number}>" for number in range(30)), seeds=(0, 1))
# the student is brighter by 5 on the mean, with a scatter over prompts that both share
GREYS: dict[str, Callable[[int, int], int]] = {
    "student": lambda prompt, seed: 60 + 4 * prompt + 5 + seed + prompt % 3 - 1,
    "teacher": lambda prompt, seed: 60 + 4 * prompt + seed,
}


def scored_in(path: Path, greys: dict[str, Callable[[int, int], int]] = GREYS) -> tuple[Table, list[Scored]]:
    folder, records = paint(path, TASK, greys)
    metrics = (Brightness(), Darkness(), Spread())
    found = score(folder, TASK, records, metrics, ranks=Ranks(), console=Console(quiet=True), device="cpu")
    table = make_table(found, num_prompts=30)
    summary = write_results(folder, TASK, table, found)
    report_of(folder, TASK, table, found, summary).write(path / "report.html")
    return table, found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluations") / "first"
    scored_in(path)
    return path


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads((folder / "scores.json").read_text())  # type: ignore[no-any-return]


def cell(summary: dict[str, list[dict[str, object]]], model: str, figure: str) -> dict[str, object]:
    return next(row for row in summary["scores"] if row["model"] == model and row["figure"] == figure)


def test_the_difference_to_the_teacher_is_paired(summary: dict[str, list[dict[str, object]]]) -> None:
    found = cell(summary, "student", "brightness")
    assert found["difference"] == pytest.approx(5.0)
    paired, alone = found["difference_interval"], found["interval"]
    assert isinstance(paired, dict)
    assert isinstance(alone, dict)
    assert 4.5 < paired["low"] < 5 < paired["high"] < 5.5
    assert alone["high"] - alone["low"] > 20


def test_the_verdict_follows_the_direction_of_the_metric(summary: dict[str, list[dict[str, object]]]) -> None:
    assert cell(summary, "student", "brightness")["verdict"] == "better"
    assert cell(summary, "student", "darkness")["verdict"] == "worse"
    assert cell(summary, "student", "spread")["verdict"] == "no clear difference"
    assert cell(summary, "teacher", "brightness")["verdict"] is None


def test_a_figure_of_the_whole_set_has_a_jackknife_interval(summary: dict[str, list[dict[str, object]]]) -> None:
    interval = cell(summary, "teacher", "spread")["interval"]
    assert isinstance(interval, dict)
    assert interval["method"] == "paired jackknife over prompts, 20 draws"
    # greys 60, 64, ... 176 have a standard deviation of 4 sqrt(899 / 12) = 34.6
    assert interval["low"] < 34.6 < interval["high"]


def test_every_score_carries_its_protocol(summary: dict[str, list[dict[str, object]]]) -> None:
    assert {row["protocol"] for row in summary["scores"]} == set(summary["protocols"])


def test_the_csv_holds_every_figure_exactly(folder: Path, summary: dict[str, list[dict[str, object]]]) -> None:
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["figure"], float(r["value"])) for r in rows] == [
        (row["model"], row["figure"], row["value"]) for row in summary["scores"]
    ]


def test_the_scores_of_single_pictures_are_written(folder: Path) -> None:
    with (folder / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 60  # two models, two metrics of single pictures, 30 prompts of two seeds
    first = rows[0]
    assert (first["model"], first["metric"], first["prompt"]) == ("student", "brightness", "prompt <0>")
    assert float(first["score"]) == 64


def test_the_markdown_table_has_the_teacher_and_marks_clear_differences(folder: Path) -> None:
    lines = (folder / "scores.md").read_text().splitlines()
    assert lines[0].startswith("| model | steps | calls | brightness ↑ | darkness ↑ | spread ↑ |")
    assert lines[2].startswith("| student | 4 | 4 | **")
    assert lines[3].startswith("| teacher (teacher) | 4 | 4 | 118.50 [")


def test_the_report_needs_no_network(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert 'src="data:image/png;base64,' in page


def test_the_report_escapes_prompts(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "prompt &lt;0&gt;" in page
    assert "prompt <0>" not in page


def extremes(page: str, metric: str) -> tuple[list[int], list[int]]:
    """Numbers of the best and of the worst prompts that the report shows, in order."""
    start = page.index(f"<summary>{metric}: student against teacher</summary>")
    shown = re.findall(
        r"<span>(best|worst)</span> <b>prompt &lt;(\d+)&gt;", page[start : page.index("</details>", start)]
    )
    return [int(n) for kind, n in shown if kind == "best"], [int(n) for kind, n in shown if kind == "worst"]


def test_the_report_shows_the_prompts_with_the_largest_gains(folder: Path) -> None:
    # the gain is 4, 5 or 6 by the prompt's number modulo 3
    assert extremes((folder / "report.html").read_text(), "brightness") == ([2, 5, 8], [])


def test_the_report_shows_the_prompts_with_the_largest_losses(folder: Path) -> None:
    assert extremes((folder / "report.html").read_text(), "darkness") == ([], [29, 26, 23])


def test_a_prompt_on_which_both_score_alike_is_neither_best_nor_worst(tmp_path: Path) -> None:
    differing = {3: 9, 11: -7}
    greys: dict[str, Callable[[int, int], int]] = {
        "student": lambda prompt, seed: 100 + differing.get(prompt, 0),
        "teacher": lambda prompt, seed: 100,
    }
    scored_in(tmp_path, greys)
    assert extremes((tmp_path / "report.html").read_text(), "brightness") == ([3], [11])


def test_a_metric_that_scores_both_alike_has_no_best_and_worst_prompts(tmp_path: Path) -> None:
    scored_in(tmp_path, {"student": GREYS["teacher"], "teacher": GREYS["teacher"]})
    assert "Best and worst prompts" not in (tmp_path / "report.html").read_text()


def test_one_prompt_gives_no_interval(tmp_path: Path) -> None:
    task = task_of("alone")
    folder, records = paint(tmp_path, task, GREYS)
    found = score(folder, task, records, [Brightness()], ranks=Ranks(), console=Console(quiet=True), device="cpu")
    table = make_table(found, num_prompts=1)
    assert [one.interval for one in table.cells] == [None, None]
    assert "| student | 4 | 4 | 64.00 |" in as_markdown(task, table)


def test_two_evaluations_measured_alike_share_a_table(folder: Path) -> None:
    scored_in(folder.with_name("second"))
    text = compare_folders([folder, folder.with_name("second")])
    assert "| first: student | 4 | 123.5" in text
    assert "| second: teacher | 4 | 118.5" in text


def test_two_evaluations_of_other_prompts_are_refused(folder: Path, tmp_path: Path) -> None:
    task = task_of("x", "y")
    other, records = paint(tmp_path / "other", task, GREYS)
    found = score(other, task, records, [Brightness()], ranks=Ranks(), console=Console(quiet=True), device="cpu")
    write_results(other, task, make_table(found, num_prompts=2), found)
    with pytest.raises(ConfigError, match=r"first: student and of other: student were .*--allow-different-protocols"):
        compare_folders([folder, other.path])
    assert "Not comparable: brightness of first: student" in compare_folders([folder, other.path], allow_different=True)


def test_a_folder_without_scores_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no scores.json; score it first: fewstep evaluate --phase score"):
        compare_folders([tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "null", "{}", "[" * 100_000, '{"scores": {}, "models": [], "protocols": {}}'),
        '{"scores": [{"model": "x"}], "models": [], "protocols": {}}',
        '{"scores": [], "models": [{"name": "x"}], "protocols": {}}',
        '{"scores": [{"model": "x", "role": "student", "metric": "m", "figure": "f", "value": 1, "interval": null, '
        '"protocol": "p"}], "models": [], "protocols": {}}',
    ],
)
def test_scores_of_another_shape_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"scores.json cannot be used: .*Score the evaluation again"):
        compare_folders([tmp_path])


def pair(summary: dict[str, list[dict[str, object]]], figure: str) -> dict[str, object]:
    return next(row for row in summary["pairs"] if row["figure"] == figure)


def test_a_win_rate_is_the_share_of_prompts_won_with_ties_as_halves(tmp_path: Path) -> None:
    # of every three prompts: one won, one lost, one drawn, and the last eight all won
    greys: dict[str, Callable[[int, int], int]] = {
        "a": lambda prompt, seed: 100 + (prompt % 3 - 1 if prompt < 22 else 1),
        "b": lambda prompt, seed: 100,
    }
    table, _ = scored_in(tmp_path, greys)
    won = next(one for one in table.pairs if one.figure == "brightness")
    lost = next(one for one in table.pairs if one.figure == "darkness")
    # 22 prompts: 7 wins, 8 losses, 7 ties
    assert won.win_rate == pytest.approx((7 + 7 / 2 + 8) / 30)
    assert lost.win_rate == pytest.approx(1 - (7 + 7 / 2 + 8) / 30)
    assert (won.model, won.other, won.prompts) == ("a", "b", 30)


def test_models_without_a_teacher_are_compared_with_each_other(tmp_path: Path) -> None:
    table, _ = scored_in(tmp_path, dict.fromkeys(("a", "b", "c"), GREYS["teacher"]))
    assert {(one.model, one.other) for one in table.pairs} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert {one.verdict for one in table.pairs} == {"no clear difference"}
    assert "against c" in (tmp_path / "report.html").read_text()


def test_a_pairs_difference_is_that_of_the_table(summary: dict[str, list[dict[str, object]]]) -> None:
    for figure in ("brightness", "darkness", "spread"):
        own, found = cell(summary, "student", figure), pair(summary, figure)
        assert (found["difference"], found["interval"]) == (own["difference"], own["difference_interval"])
        assert found["verdict"] == own["verdict"]


def test_a_set_has_no_win_rate(summary: dict[str, list[dict[str, object]]]) -> None:
    assert pair(summary, "spread")["win_rate"] is None
    assert pair(summary, "brightness")["win_rate"] == 1.0


def test_the_text_about_intervals_says_that_the_reference_is_held_fixed(
    folder: Path, summary: dict[str, list[dict[str, object]]]
) -> None:
    assert "are held fixed" in str(summary["intervals"])
    assert "are held fixed" in (folder / "report.html").read_text()
    assert "the reference pictures held fixed" in (folder / "scores.md").read_text()


def test_the_table_is_written_for_a_paper(folder: Path) -> None:
    lines = (folder / "scores.tex").read_text().splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrr}"
    assert lines[3] == r"model & steps & calls & brightness $\uparrow$ & darkness $\uparrow$ & spread $\uparrow$ \\"
    assert re.fullmatch(r"student & 4 & 4 & \\textbf\{123\.50\} \{\\scriptsize \[[\d., ]+\]\} & .* \\\\", lines[5])
    assert lines[7:9] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.startswith("% ") for line in lines[9:])


def test_a_name_is_plain_text_in_latex(tmp_path: Path) -> None:
    scored_in(tmp_path, {"a_b 50%": GREYS["student"], "teacher": GREYS["teacher"]})
    assert r"a\_b 50\% & 4" in (tmp_path / "scores.tex").read_text()
