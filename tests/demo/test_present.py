"""The report on invented scores and pictures: what it says, and that it needs nothing but itself."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.demo.present import read_losses, report_of
from fewstep.demo.protocol import Row
from fewstep.demo.showcase import FULL_ROWS, ZOOM, Panel, compose, draw_panel
from fewstep.evaluation.report import Report


def row(fd: float, guidance: float | None) -> Row:
    return Row(
        fd=fd, kd=12.34, accuracy=0.9876, precision=0.81, recall=0.91, density=0.92, coverage=0.83, diversity=0.76,
        tv=0.19, guidance=guidance, n=1400,
    )  # fmt: skip


def numbered(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Pictures of one grey level each: their number."""
    return torch.arange(len(prompts), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)


ROWS = {
    "real": row(0.3, None),
    "teacher_50": row(0.6, 2.0),
    "teacher_4": row(1.8, 1.5),
    "student_4": row(0.7, 1.0),
}
COST = {"teacher_50": (50, 100), "teacher_4": (4, 8), "student_4": (4, 4)}
PANELS = [draw_panel(numbered, row=name, steps=steps, calls=calls) for name, (steps, calls) in COST.items()]


def report(seeds: Mapping[int, Row] = {0: ROWS["student_4"]}) -> Report:
    return report_of(
        ROWS,
        seeds,
        PANELS,
        losses={"ca": [(0, 1.0), (2, 0.5), (4, 0.25)]},
        commands=[("draw", 'fewstep sample out --prompt "a & b"')],
        footer=["Distilled <quickly>."],
    )


@pytest.fixture(scope="module")
def html() -> str:
    return report().html()


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


def test_every_tag_of_the_report_is_closed(html: str) -> None:
    assert Page(html).open == []


def test_the_report_asks_nothing_of_the_network(html: str) -> None:
    page = Page(html)
    assert all(
        source is not None and source.startswith("data:image/png;base64,") for source in page.attributes("img", "src")
    )
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
    assert re.findall(r"https?://|url\(|@import", html) == []


def test_the_report_shows_three_models_twice(html: str) -> None:
    assert len(Page(html).attributes("img", "src")) == 6


def test_a_picture_in_the_report_is_the_picture_that_was_drawn(html: str) -> None:
    source = Page(html).attributes("img", "src")[0]
    assert source is not None
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert image.shape == (320, 224, 3)
    # the picture in the second row and third column is number 9
    assert (image[32:64, 64:96] == 9).all()


def test_pointing_at_a_picture_names_its_prompt_and_seed(html: str) -> None:
    titles = Page(html).attributes("i", "title")
    assert titles[0] == "a red handwritten zero, seed 0"
    assert titles.count("a handwritten nine, seed 6") == 3
    assert len(titles) == 420


def test_the_report_opens_with_calls_and_distances(html: str) -> None:
    assert "<h1>4 network calls instead of 100</h1>" in html
    assert "at a Frechet distance of 0.70; its teacher needs 100 calls for 0.60" in html


def test_the_scores_of_every_row_are_under_the_pictures(html: str) -> None:
    student = html.index(
        '<tr class="student"><td>Student, 4 steps</td><td>4</td><td>4</td><td>1</td><td>0.700</td><td>12.34</td>'
    )
    assert student > html.rindex("<img")


def test_training_seeds_are_listed_when_there_are_several(html: str) -> None:
    several = report({3: row(0.65, 1.0), 5: row(0.75, 1.0)}).html()
    assert "<td>training seed 5</td><td>4</td><td>4</td><td>1</td><td>0.750</td>" in several
    assert "training seed" not in html


def test_a_figure_that_ships_without_its_pictures_has_no_interval(html: str) -> None:
    assert '<tr class=""><td>Real data</td><td>&ndash;</td><td>&ndash;</td><td>&ndash;</td><td>0.300</td>' in html


def test_every_figure_has_a_bar_for_every_row(html: str) -> None:
    charts = re.findall(
        r'<figure class="chart"><figcaption><b>([^<]+)</b> (.?)</figcaption><svg[^>]*>(.*?)</svg>', html
    )
    assert [(name, arrow, bars.count("<rect")) for name, arrow, bars in charts] == [
        ("FD", "↓", 4), ("KD", "↓", 4), ("accuracy", "↑", 4), ("precision", "↑", 4), ("recall", "↑", 4),
        ("density", "", 4), ("coverage", "↑", 4), ("diversity", "", 4), ("colour TV", "↓", 4),
    ]  # fmt: skip


def test_text_in_the_report_is_escaped(html: str) -> None:
    assert "Distilled &lt;quickly&gt;." in html
    assert "--prompt &quot;a &amp; b&quot;" in html


def test_losses_are_read_from_the_metrics_of_a_run(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"step": 0, "seconds": 0.1, "loss/fake_score": 1.5}\n'
        '{"step": 1, "seconds": 0.1, "loss/fake_score": 1.25, "loss/ca": 0.5, "lr/student": 0.001}\n'
    )
    assert read_losses(metrics) == {"fake_score": [(0, 1.5), (1, 1.25)], "ca": [(1, 0.5)]}


def test_a_panel_draws_full_prompts_at_seed_0_and_open_prompts_at_seven_seeds() -> None:
    panel: Panel = draw_panel(numbered, row="student_4", steps=4, calls=4)
    assert set(panel.full.seeds) == {0}
    assert len(set(panel.full.prompts)) == 70
    assert panel.open.prompts[7:14] == ("a handwritten one",) * 7
    assert panel.open.seeds[7:14] == (0, 1, 2, 3, 4, 5, 6)


def test_the_one_picture_shows_the_panels_side_by_side() -> None:
    image = np.asarray(compose(PANELS, ROWS))
    last = FULL_ROWS[1] * 7 - 1
    # the last full picture of each panel, in its grey level, three times beside each other
    columns = np.flatnonzero((image == last).all(axis=2).sum(axis=0) >= 32 * ZOOM)
    assert len(columns) == 3 * 32 * ZOOM
