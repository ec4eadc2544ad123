"""Plots are seen on white and on dark paper, and what they show is where it should be."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from benchmarks.evidence.plots import COLOURS, INK, Dot, Panel, Series, svg

WHITE, DARK = "#ffffff", "#0d1117"  # the papers of GitHub's two themes


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("paper", [WHITE, DARK])
@pytest.mark.parametrize(("colour", "least"), [(INK, 4.0), *((colour, 3.0) for colour in COLOURS)])
def test_every_colour_is_seen_on_both_papers(colour: str, least: float, paper: str) -> None:
    # 3 is what WCAG asks of graphics; of text it asks 4.5, which no colour has on both
    assert contrast(colour, paper) >= least


def plotted(*series: Series) -> str:
    return svg([Panel("title", "x", "y", series)], columns=1, title="a & b")


def test_a_plot_is_one_picture_that_says_what_it_is() -> None:
    root = ElementTree.fromstring(plotted(Series("<a>", [Dot(0.0, 0.0), Dot(1.0, 1.0)])))
    assert root[0].text == "a & b"
    assert "<a>" in [element.text for element in root.iter()]


def test_a_larger_value_is_further_right_and_further_up() -> None:
    path = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', plotted(Series("a", [Dot(0.0, 0.0), Dot(1.0, 1.0)])))
    assert path is not None
    x0, y0, x1, y1 = map(float, path.groups())
    assert x1 > x0 and y1 < y0


def test_marks_are_not_joined() -> None:
    dots = [Dot(0.0, 0.0), Dot(1.0, 1.0)]
    assert 'stroke-width="1.6"' not in plotted(Series("a", dots, joined=False))


def test_an_interval_is_a_line_through_its_point() -> None:
    assert 'stroke-opacity="0.6"' in plotted(Series("a", [Dot(0.0, 0.0, reach=1.0)]))
    assert 'stroke-opacity="0.6"' not in plotted(Series("a", [Dot(0.0, 0.0)]))


def test_a_panel_without_points_says_not_run() -> None:
    assert ">not run<" in plotted(Series("a", []))


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.956, 0.981), (-3.0, 40.0), (1.0, 1.0)])
def test_the_ticks_are_round_values_of_the_axis(values: tuple[float, float]) -> None:
    text = plotted(Series("a", [Dot(value, 0.0) for value in values]))
    ticks = [float(tick) for tick in re.findall(r'y="262" text-anchor="middle">([-\d.e]+)<', text)]
    assert 2 <= len(ticks) <= 8
    steps = {f"{high - low:.2g}".strip("0.")[0] for low, high in pairwise(ticks)}
    assert len(steps) == 1
    assert steps <= {"1", "2", "5"}
