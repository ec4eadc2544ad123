"""What a run shows while it goes on."""

from pathlib import Path

import pytest
from PIL import Image

from fewstep.ui.run_view import curves_html, progress_html, sheet_html, sheets_of, stamp_of, story_html
from tests.runs.made import line, made_run


def test_figures_are_charts_by_what_they_are_about(tmp_path: Path) -> None:
    lines = [line(step, ca=1.0 / (step + 1)) | {"health/colour_cast": 0.1 * step} for step in range(9)]
    html = curves_html(made_run(tmp_path, lines=lines))
    assert html.index("<h3>Losses</h3>") < html.index("<b>ca</b>") < html.index("<h3>Health</h3>")
    assert "<b>colour_cast</b>" in html and "Measured" not in html


def test_the_names_of_figures_are_text(tmp_path: Path) -> None:
    assert "<b>&lt;i&gt;</b>" in curves_html(made_run(tmp_path, lines=[line(0, **{"<i>": 1.0})]))


def test_a_long_run_is_thinned_to_what_a_chart_shows(tmp_path: Path) -> None:
    html = curves_html(made_run(tmp_path, lines=[line(step, ca=float(step)) for step in range(5000)]))
    assert html.count(",") < 1300


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    assert "nan" not in curves_html(made_run(tmp_path, lines=[line(0, ca=1.0), line(1, ca=float("nan"))]))


def test_a_run_without_a_step_says_that_it_is_followed(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    assert "No step was written yet" in curves_html(run)
    assert stamp_of(run) == (0, 0)


def test_progress_is_updates_of_the_budget_and_a_state(tmp_path: Path) -> None:
    html = progress_html(made_run(tmp_path, lines=[line(7, ca=1.0)], saved=[8]))
    assert "4 of 10 updates · last step" in html and 'aria-valuenow="40"' in html and ">stopped<" in html


def test_a_stamp_changes_with_every_line(tmp_path: Path) -> None:
    run = made_run(tmp_path, lines=[line(0, ca=1.0)])
    before = stamp_of(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1}\n')
    assert stamp_of(run) != before


def test_a_sheet_says_of_which_update_and_size_it_is(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (run / "sheets").mkdir()
    for name in ("update-000100.png", "update-000050-16x24.png", "other.png"):
        Image.new("RGB", (8, 8)).save(run / "sheets" / name)
    first, second = map(sheet_html, sheets_of(run))
    assert "after 50 updates, 16x24:" in first and "after 100 updates:" in second


@pytest.mark.parametrize("override", ["seed=7", "student.lr=3e-5"])
def test_the_story_tells_what_differs_from_the_recipe(tmp_path: Path, override: str) -> None:
    html = story_html(made_run(tmp_path, override))
    assert f"{override.partition('=')[0]}: " in html and "<dd>digits</dd>" in html
