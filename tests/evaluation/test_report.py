"""What a report is made of: charts that keep their size, losses as lines, sheets of small pictures."""

import re

import pytest
import torch

from fewstep.evaluation.report import Report
from fewstep.evaluation.report_charts import line_chart
from fewstep.evaluation.report_pictures import Sheet
from fewstep.evaluation.table import Table


def test_one_chart_alone_is_no_larger_than_one_of_many() -> None:
    """An SVG that is as wide as its column scales its letters with it: both the column and the SVG are bounded."""
    html = Report("title", "headline", "lead", Table((), ()), "methods").html()
    columns = re.search(r"\.charts \{[^}]*repeat\(([\w-]+), minmax\((\d+)px, 1fr\)\)", html)
    assert columns is not None
    assert columns[1] == "auto-fill"
    bound = re.search(r"\.chart svg \{[^}]*max-width: (\d+)px", html)
    assert bound is not None
    # letters are at most half as large again as in the narrowest column
    assert int(bound[1]) <= 1.5 * int(columns[2])


def heights(chart: str) -> list[tuple[float, float]]:
    """The points of a chart's strong line."""
    points = re.findall(r'class="mean" points="([^"]+)"', chart)[0]
    return [(float(x), float(y)) for x, y in (spot.split(",") for spot in points.split())]


def test_a_running_mean_starts_with_what_there_is() -> None:
    values = [4.0, 2.0, 0.0, 6.0] * 9  # 36 steps: a mean over three
    told = re.findall(r'aria-label="([^"]+)"', line_chart("ca", list(enumerate(values))))
    assert told == ["ca: running mean 4.0000 at first, 2.6667 at the end"]


def test_a_chart_runs_from_left_to_right_and_falls_with_its_values() -> None:
    xs, ys = zip(*heights(line_chart("ca", [(0, 1.0), (10, 0.5), (20, 0.0)])), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # the y axis of SVG points down


def test_a_chart_of_a_constant_loss_is_a_line_inside_the_frame() -> None:
    assert all(0 <= y <= 120 for _, y in heights(line_chart("ca", [(0, 0.5), (1, 0.5)])))


@pytest.mark.parametrize("columns", [2, 7])
def test_a_sheet_lays_pictures_out_in_rows(columns: int) -> None:
    pixels = torch.arange(14, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    mosaic = Sheet(pixels, ("",) * 14, (0,) * 14, columns).mosaic()
    assert mosaic.shape == (14 // columns * 32, columns * 32, 3)
    assert mosaic[::32, ::32, 0].flatten().tolist() == list(range(14))
