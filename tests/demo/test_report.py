"""The report on invented scores and pictures: what it says, and that it needs nothing but itself."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.demo.chart import line_chart, read_curves, running_mean
from fewstep.demo.picture import FULL_ROWS, ZOOM, compose
from fewstep.demo.protocol import Row
from fewstep.demo.report import ReportContents, format_figure, render
from fewstep.demo.showcase import Panel, Sheet, draw_panel


def row(fd: float, guidance: float | None) -> Row:
    return Row(
        fd=fd, kd=12.34, accuracy=0.9876, precision=0.81, recall=0.91, density=0.92, coverage=0.83, diversity=0.76,
        tv=0.19, guidance=guidance, n=1400,
    )  # fmt: skip


def numbered(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Pictures of one grey level each: their number."""
    return torch.arange(len(prompts), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)


@pytest.fixture
def contents() -> ReportContents:
    names = {"teacher_50": 100, "teacher_4": 8, "student_4": 4}
    return ReportContents(
        rows={
            "real": row(0.3, None),
            "teacher_50": row(0.6, 2.0),
            "teacher_4": row(1.8, 1.5),
            "student_4": row(0.7, 1.0),
        },
        student_rows={0: row(0.7, 1.0)},
        panels=[draw_panel(numbered, row=name, title=name, calls=calls) for name, calls in names.items()],
        curves={"ca": [(0, 1.0), (2, 0.5), (4, 0.25)]},
        calls=names,
        facts=["Distilled <quickly>."],
        commands=[("draw", 'fewstep sample out --prompt "a & b"')],
    )


class Page(HTMLParser):
    """Collects a page's tags, and fails on one that is closed out of order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [attrs.get(name) for found, attrs in self.tags if found == tag]


def test_every_tag_of_the_report_is_closed(contents: ReportContents) -> None:
    assert Page(render(contents)).open == []


def test_the_report_asks_nothing_of_the_network(contents: ReportContents) -> None:
    page = Page(render(contents))
    assert all(
        source is not None and source.startswith("data:image/png;base64,") for source in page.attributes("img", "src")
    )
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
    assert re.findall(r"https?://|url\(|@import", render(contents)) == []


def test_the_report_shows_three_models_twice(contents: ReportContents) -> None:
    assert len(Page(render(contents)).attributes("img", "src")) == 6


def test_a_picture_in_the_report_is_the_picture_that_was_drawn(contents: ReportContents) -> None:
    source = Page(render(contents)).attributes("img", "src")[0]
    assert source is not None
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert image.shape == (320, 224, 3)
    # the picture in the second row and third column is number 9
    assert (image[32:64, 64:96] == 9).all()


def test_pointing_at_a_picture_names_its_prompt_and_seed(contents: ReportContents) -> None:
    titles = Page(render(contents)).attributes("i", "title")
    assert titles[0] == "a red handwritten zero, seed 0"
    assert titles.count("a handwritten nine, seed 6") == 3
    assert len(titles) == 420


def test_the_report_opens_with_calls_and_distances(contents: ReportContents) -> None:
    text = render(contents)
    assert "<h1>4 network calls instead of 100</h1>" in text
    assert "at a Frechet distance of 0.70; its teacher needs 100 calls for 0.60" in text


def test_the_scores_of_every_row_are_under_the_pictures(contents: ReportContents) -> None:
    text = render(contents)
    student = text.index('<tr class="student"><td>Student, 4 steps</td><td>0.70</td><td>12.3</td><td>0.988</td>')
    assert student > text.rindex("<img")


def test_training_seeds_are_listed_when_there_are_several(contents: ReportContents) -> None:
    several = replace(contents, student_rows={3: row(0.65, 1.0), 5: row(0.75, 1.0)})
    assert "<td>training seed 5</td><td>0.75</td>" in render(several)
    assert "training seed" not in render(contents)


def test_text_in_the_report_is_escaped(contents: ReportContents) -> None:
    text = render(contents)
    assert "Distilled &lt;quickly&gt;." in text
    assert "--prompt &quot;a &amp; b&quot;" in text


@pytest.mark.parametrize(("figure", "text"), [("kd", "1.2"), ("accuracy", "1.235"), ("fd", "1.23")])
def test_a_figure_has_the_digits_that_mean_something(figure: str, text: str) -> None:
    assert format_figure(figure, 1.2346) == text


def test_a_running_mean_starts_with_what_there_is() -> None:
    assert running_mean([4.0, 2.0, 0.0, 6.0], window=3) == [4.0, 3.0, 2.0, pytest.approx(8 / 3)]


def test_a_chart_runs_from_left_to_right_and_falls_with_its_values() -> None:
    points = re.findall(r'class="mean" points="([^"]+)"', line_chart("ca", [(0, 1.0), (10, 0.5), (20, 0.0)]))[0]
    xs, ys = zip(*(map(float, spot.split(",")) for spot in points.split()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # the y axis of SVG points down


def test_a_chart_of_a_constant_loss_is_a_line_inside_the_frame() -> None:
    points = re.findall(r'class="mean" points="([^"]+)"', line_chart("ca", [(0, 0.5), (1, 0.5)]))[0]
    assert all(0 <= float(spot.split(",")[1]) <= 120 for spot in points.split())


def test_curves_are_read_from_the_metrics_of_a_run(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"step": 0, "seconds": 0.1, "loss/fake_score": 1.5}\n'
        '{"step": 1, "seconds": 0.1, "loss/fake_score": 1.25, "loss/ca": 0.5, "lr/student": 0.001}\n'
    )
    assert read_curves(metrics) == {"fake_score": [(0, 1.5), (1, 1.25)], "ca": [(1, 0.5)]}


def test_a_mosaic_lays_pictures_out_in_rows_of_seven() -> None:
    sheet = Sheet(numbered([""] * 14, [0] * 14), ("",) * 14, (0,) * 14)
    mosaic = sheet.mosaic()
    assert mosaic.shape == (64, 224, 3)
    assert mosaic[::32, ::32, 0].flatten().tolist() == list(range(14))


def test_a_panel_draws_full_prompts_at_seed_0_and_open_prompts_at_seven_seeds() -> None:
    panel: Panel = draw_panel(numbered, row="student_4", title="Student", calls=4)
    assert set(panel.full.seeds) == {0}
    assert len(set(panel.full.prompts)) == 70
    assert panel.open.prompts[7:14] == ("a handwritten one",) * 7
    assert panel.open.seeds[7:14] == (0, 1, 2, 3, 4, 5, 6)


def test_the_one_picture_shows_the_panels_side_by_side(contents: ReportContents) -> None:
    image = np.asarray(compose(contents.panels, contents.rows))
    last = FULL_ROWS[1] * 7 - 1
    # the last full picture of each panel, in its grey level, three times beside each other
    columns = np.flatnonzero((image == last).all(axis=2).sum(axis=0) >= 32 * ZOOM)
    assert len(columns) == 3 * 32 * ZOOM
