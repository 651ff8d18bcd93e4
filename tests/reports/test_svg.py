"""Charts are well-formed SVG, in their frame, with every text escaped and none too small."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.reports.svg import (
    WIDTH,
    Axis,
    Band,
    Box,
    Group,
    Interval,
    Series,
    box_plot,
    interval_plot,
    line_chart,
    padded,
    stacked_histogram,
    tick_label,
    ticks,
)

HOSTILE = '<b onload="x">&'
LINES = [Series("a", [0, 1], [0, 1], "series-0"), Series(HOSTILE, [0.5], [0.5], "series-1")]
CHARTS = {
    "lines": line_chart(LINES, Axis(HOSTILE, 0, 1), Axis("y", 0, 1)),
    "histogram": stacked_histogram([Group(HOSTILE, [0.1, 0.2], "normal")], HOSTILE, (HOSTILE, 0.15)),
    "intervals": interval_plot([Interval(HOSTILE, 0.5, 0.4, 0.6, "x", "series-0")], (HOSTILE, 0.05)),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_parse_and_escape(name: str) -> None:
    root = ET.fromstring(CHARTS[name])
    texts = [element.text for element in root.iter("text")]
    assert HOSTILE in texts
    assert not list(root.iter("b"))
    assert root.get("width") == str(WIDTH)


def test_a_line_goes_through_its_points() -> None:
    chart = ET.fromstring(line_chart([LINES[0]], Axis("x", 0, 1), Axis("y", 0, 1), height=230))
    (line,) = chart.iter("polyline")
    assert line.get("points") == "44.0,190.0 330.0,24.0"


def test_values_that_are_not_finite_are_left_out() -> None:
    svg = line_chart([Series("a", [0, 0.5, 1], [0, float("nan"), 1], "s")], Axis("x", 0, 1), Axis("y", 0, 1))
    assert "nan" not in svg


def test_an_interval_that_is_not_defined_is_said_not_drawn() -> None:
    svg = interval_plot([Interval("a", None, None, None, "–", "series-0")])
    assert "circle" not in svg
    assert "–" in svg


def test_every_value_has_its_bar() -> None:
    svg = stacked_histogram([Group("a", [0.0, 0.5, 1.0], "normal"), Group("none", [], "normal")], "score")
    (bars,) = [e for e in ET.fromstring(svg).iter("path") if "bar" in (e.get("class") or "")]
    assert (bars.get("d") or "").count("z") == 3
    assert "none" not in svg


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_inside_and_even(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert min(found) >= low - 1e-6 * span
    assert max(found) <= low + span * (1 + 1e-6)


def test_ticks_and_labels_by_hand() -> None:
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert [tick_label(t) for t in (0.25, -3.0, 1500, 2e6)] == ["0.25", "−3", "1.5k", "2M"]


def test_padding_never_gives_an_empty_range() -> None:
    assert padded([2, 2]) == (1.8, 2.2)
    assert padded([0, 0]) == (-1, 1)
    assert padded([]) == (-0.05, 1.05)
    low, high = padded([0.1, math.nextafter(0.1, 1)])  # as far apart as rounding puts equal scores and their bound
    assert high - low > 0.01


def test_a_box_from_quartile_to_quartile_only_where_there_are_four() -> None:
    few, many = (
        Box("few", [0.2, 0.4], 0.3, "", "series-0"),
        Box("many", [0.0, 0.25, 0.5, 0.75, 1.0], None, "", "series-1"),
    )
    svg = ET.fromstring(box_plot([few, many], Axis("AUROC", 0, 1), "published"))
    styles = [e.get("class") for e in svg.iter() if e.get("class")]
    assert styles.count("box series-1") == 1
    assert "box series-0" not in styles
    assert sum(style.startswith("dot") for style in styles if style) == 7
    (box,) = [e.get("d") or "" for e in svg.iter("path") if e.get("class") == "box series-1"]
    ends = [float(x) for x in re.findall(r"[MH]([\d.]+)", box)]
    dots = [float(e.get("cx") or 0) for e in svg.iter("circle")][2:]
    assert ends[:2] == [dots[1], dots[3]]


def test_a_band_closes_between_its_lines() -> None:
    svg = line_chart([], Axis("x", 0, 1), Axis("y", 0, 1), bands=[Band([0, 1], [0.1, 0.2], [0.3, 0.4], "series-0")])
    (band,) = [e.get("d") or "" for e in ET.fromstring(svg).iter("path") if "band" in (e.get("class") or "")]
    points = re.findall(r"([\d.]+) ([\d.]+)", band)
    assert len(points) == 4
    assert [x for x, _ in points] == [points[0][0], points[1][0], points[1][0], points[0][0]]
    assert float(points[0][1]) < float(points[3][1])  # the upper line is nearer to the top
    assert band.endswith("z")
