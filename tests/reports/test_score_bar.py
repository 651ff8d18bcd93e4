"""A bar shows where a score lies among the normals of the run."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from anomaly_lab.reports.score_bar import WIDTH, ScoreBar

BAR = ScoreBar([1.0, 2.0, 4.0], threshold=5.0)


def at(drawing: str, name: str = "circle") -> float:
    return float(re.findall(rf'<{name}[^>]* c?x="([^"]*)"', drawing)[0])


def test_scores_lie_in_their_order_between_normals_and_threshold() -> None:
    places = [at(BAR.draw(score)) for score in (1.0, 2.0, 4.0, 5.0, 6.0)]
    assert places == sorted(places)
    assert places[0] == pytest.approx(at(BAR.draw(2.0), "rect"), abs=0.1)  # the field begins with the lowest normal
    assert ("alarm" in BAR.draw(5.0), "alarm" in BAR.draw(5.1)) == (False, True)


@pytest.mark.parametrize("score", [-100.0, 100.0, float("inf")])
def test_what_lies_outside_the_scale_is_an_arrow_inside_the_drawing(score: float) -> None:
    drawing = BAR.draw(score)
    assert "<circle" not in drawing
    assert float(re.findall(r'class="score[^"]*" d="M([\d.]+)', drawing)[0]) in (8, WIDTH - 8)


@pytest.mark.parametrize(("normals", "threshold"), [([0.5], None), ([0.5, 0.5], 0.5), ([1e-30, 2e-30], 1e-30)])
def test_normals_that_are_one_or_alike_have_a_scale(normals: list[float], threshold: float | None) -> None:
    for score in (normals[0], normals[0] * 1.5, 0.0):
        assert "nan" not in ScoreBar(normals, threshold).draw(score)


def test_the_drawing_is_well_formed_and_says_itself_in_words() -> None:
    root = ElementTree.fromstring(BAR.draw(3.0))
    assert root.attrib["aria-label"] == "higher than 2 of 3 normals of the run"
