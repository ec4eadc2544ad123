"""Runs side by side, as numbers and as curves."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from fewstep.errors import CheckpointError, ConfigError
from fewstep.runs.charts import write_comparison
from fewstep.runs.comparison import WINDOW, Figure, RunComparison, compare_runs
from tests.runs.made import line, made_run


def compared(tmp_path: Path, *lines: list[dict[str, Any]], overrides: tuple[str, ...] = ()) -> RunComparison:
    """Runs a, b, ... of these lines; the overrides are of the first."""
    runs = [
        made_run(tmp_path, *(overrides if number == 0 else ()), lines=told, name="abc"[number])
        for number, told in enumerate(lines)
    ]
    return compare_runs(runs)


def test_settings_that_differ_in_any_of_them_are_told_of_all(tmp_path: Path) -> None:
    runs = [
        made_run(tmp_path, *overrides, name=str(number))
        for number, overrides in enumerate([("student.lr=2e-5",), (), ("batch=8", "report.sheet_every=7")])
    ]
    found = compare_runs(runs).settings
    assert (found["student.lr"], found["batch"][2], found["report.sheet_every"][2]) == ([2e-5, 1e-4, 1e-4], 8, 7)
    assert found.keys() == {"student.lr", "batch", "report.sheet_every"}


def test_another_kind_is_one_setting(tmp_path: Path) -> None:
    found = compared(tmp_path, [], [], overrides=("schedule.kind=fixed",)).settings
    assert found.keys() == {"schedule"}
    assert [value["kind"] for value in found["schedule"]] == ["fixed", "random_length"]


def test_a_loss_is_its_running_mean_and_best_where_that_is_lowest(tmp_path: Path) -> None:
    falling_then_jumping = [line(step, ca=float(100 - step if step < 50 else 100)) for step in range(80)]
    found = compared(tmp_path, falling_then_jumping, [line(0, dm=3.0)])
    # of the 20 steps from 30 to 49, after 50 steps of two to an update
    assert found.figures["loss/ca"] == [Figure(100.0, sum(range(51, 71)) / WINDOW, 25.0), None]
    assert found.figures["loss/dm"] == [None, Figure(3.0, 3.0, 0.5)]
    assert found.curves["loss/ca"][0][0] == (10.0, sum(range(81, 101)) / WINDOW)


def test_of_a_measurement_its_metric_says_which_way_is_better(tmp_path: Path) -> None:
    lines = [
        {"step": step, "evaluation/digits": value, "evaluation/colours": value, "evaluation/other": value}
        for step, value in ((1, 0.5), (3, 0.75), (5, 0.25))
    ]
    found = compared(tmp_path, lines, lines[:1]).figures
    assert found["evaluation/digits"][0] == Figure(0.25, 0.75, 2.0)
    assert found["evaluation/colours"][0] == Figure(0.25, 0.25, 3.0)
    assert found["evaluation/other"][0] == Figure(0.25, None, None)


def test_runs_of_other_rates_lie_over_each_other_in_updates_of_the_student(tmp_path: Path) -> None:
    found = compared(tmp_path, [line(9, ca=1.0)], [line(9, ca=1.0)], overrides=("student.every=5",))
    assert found.curves["loss/ca"] == [[(2.0, 1.0)], [(5.0, 1.0)]]


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / folder / "x", name="run") for folder in ("one", "two")]
    assert compare_runs(runs).names == ["one/x/run", "two/x/run"]
    assert compare_runs([runs[0], runs[0]]).names == [str(runs[0])] * 2


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path, lines=[{"loss/ca": 1}], name="run")
    with pytest.raises(ConfigError, match="holds no run"):
        compare_runs([run, tmp_path])
    with pytest.raises(CheckpointError, match="its line 1 is damaged"):
        compare_runs([run, run])


# --- curves

RISING = [line(step, ca=float(step), dm=1.0) for step in range(100)]
BROKEN = [*RISING[:40], line(40, ca=float("nan"), dm=float("inf"))]


def test_a_picture_has_a_chart_for_each_loss_and_a_colour_for_each_run(tmp_path: Path) -> None:
    write_comparison(compared(tmp_path, RISING, BROKEN, [line(0, other=1.0)]), tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.size == (2 * 2 * 520, 2 * (3 * 22 + 12 + 2 * 300))
        colours = {colour for _, colour in picture.getcolors(1_000_000)}  # type: ignore[union-attr]
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= colours
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.png"]


def drawn(page: str) -> list[list[tuple[float, float]]]:
    """The polylines of a page's charts, those of the legend and the frames left out."""
    svg = ElementTree.fromstring(re.findall("<svg.*</svg>", page)[0])
    lines = [line for line in svg.iter("polyline") if line.get("stroke-width") == "2"]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in one.get("points", "").split())] for one in lines]


def test_a_page_has_the_curves_to_scale_and_needs_no_network(tmp_path: Path) -> None:
    found = compared(tmp_path, RISING, BROKEN, overrides=("student.lr=2e-5",))
    write_comparison(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|<script|url\(|src=", page)
    assert "<td>student.lr</td><td>2e-05</td><td>0.0001</td>" in page
    assert "<td>loss/ca</td><td>89.5, best 9.5 at update 10</td><td>29.5, best 9.5 at update 10</td>" in page
    long, short, *_ = drawn(page)
    # both begin at update 10 of 50 with the same value; the longer one ends at the right, and 4 times as far up
    assert long[0] == short[0]
    assert long[0][0] == pytest.approx(64 + (520 - 80) * 10 / 50, abs=0.1)
    assert long[-1][0] == pytest.approx(520 - 16, abs=0.1)
    assert (long[0][1] - long[-1][1]) / (short[0][1] - short[-1][1]) == pytest.approx(4, abs=0.01)


def test_a_measurement_is_drawn_as_it_is(tmp_path: Path) -> None:
    lines = [{"step": step, "evaluation/digits": value} for step, value in ((9, 0.5), (19, 1.0))]
    write_comparison(compared(tmp_path, lines, []), tmp_path / "c.html")
    ((first, last),) = drawn((tmp_path / "c.html").read_text())
    assert (first[0], last[0]) == (pytest.approx(284), pytest.approx(504))


def test_a_long_run_has_as_many_points_as_can_be_seen_and_its_last_one(tmp_path: Path) -> None:
    write_comparison(compared(tmp_path, [line(step, ca=1.0) for step in range(5000)], []), tmp_path / "c.html")
    (points,) = drawn((tmp_path / "c.html").read_text())
    assert 400 < len(points) <= 501
    assert points[-1][0] == pytest.approx(504, abs=0.1)


def test_a_name_is_text_in_a_page(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, lines=RISING[:3], name=name) for name in ("<b>&", "b")]
    write_comparison(compare_runs(runs), tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text()
    # the window's title, the page's, the table of figures, the legend
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;") == 4


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [("c.pdf", RISING, "must end in .png or .html"), ("c.png", [], "No loss was written yet")],
)
def test_what_cannot_be_drawn_is_refused(name: str, lines: list[dict[str, Any]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        write_comparison(compared(tmp_path, lines, []), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_comparison(compared(tmp_path, RISING, []), tmp_path / "file" / "c.png")


@pytest.mark.parametrize("name", ["c.png", "c.html"])
def test_values_as_far_apart_as_floats_go_are_drawn(name: str, tmp_path: Path) -> None:
    lines = [{"step": step, "loss/ca": value} for step, value in enumerate((1.7e308, -1.7e308, 1.7e308, 5e-324))]
    write_comparison(compared(tmp_path, lines, []), tmp_path / name)
    assert name == "c.png" or "nan" not in (tmp_path / name).read_text()


def test_more_charts_than_a_picture_holds_are_a_page(tmp_path: Path) -> None:
    found = compared(tmp_path, [{"step": 0, **{f"evaluation/k{number}": 1.0 for number in range(101)}}], [])
    with pytest.raises(ConfigError, match=r"have 101 figures, and a PNG shows 100 at most; .* ends in \.html"):
        write_comparison(found, tmp_path / "c.png")
    write_comparison(found, tmp_path / "c.html")
