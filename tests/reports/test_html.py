"""Every page escapes what strangers wrote and asks nothing of the network."""

import re

import pytest
from jinja2 import ChoiceLoader, DictLoader
from pages import own, scripts_of

from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import Banner, duration, environment, number, whole

HOSTILE = "<script>alert(1)</script>"
PAGE = """{% extends "page.html.j2" %}
{% from "parts.html.j2" import alike, panel, skipped %}
{% block title %}{{ word }}{% endblock %}
{% block main %}{{ panel(chart) }}{{ skipped(files, "there") }}{{ alike(audit) }}{% endblock %}
"""


def render(**values: object) -> str:
    found = environment(rate=rate)
    assert found.loader is not None
    found.loader = ChoiceLoader([DictLoader({"a.html.j2": PAGE}), found.loader])
    return found.get_template("a.html.j2").render(values)


def test_a_page_escapes_strangers_words_and_asks_nobody() -> None:
    pair = {"ids": [HOSTILE, "b"], "splits": ["train", "test"], "distance": 0.25}
    text = render(
        word=HOSTILE,
        banners=[Banner("warning", HOSTILE, HOSTILE)],
        chart={"title": HOSTILE, "svg": "<svg></svg>", "note": HOSTILE},
        files=[{"file": HOSTILE, "reason": HOSTILE}] * 101,
        audit={"shared_patients": [HOSTILE], "near_identical": [pair]},
    )
    assert HOSTILE not in text
    assert scripts_of(text) == own()
    assert "<svg></svg>" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "101 files left out" in text
    assert "100 of 101 are shown; all are in there." in text
    assert "nearly identical, distance 0.25" in text
    assert "train · test (different splits)" in text


@pytest.mark.parametrize("script", own())
def test_scripts_can_neither_ask_the_network_nor_make_code_of_words(script: str) -> None:
    assert not re.search(r"https?:|fetch|import|eval\(|Function\(|innerHTML|outerHTML|document\.write|</", script)
    assert not re.search(r"localStorage|sessionStorage|cookie", script)  # what is tried on a page is kept nowhere


def test_nothing_left_out_and_nothing_alike_are_said() -> None:
    text = render(chart={}, files=[], audit={})
    assert "No file was left out." in text
    assert "of other kinds" not in text
    assert "No identical or nearly identical images were found." in text


def test_numbers_read_as_people_write_them() -> None:
    assert (number(0.00012345), number(-12.0), number(None)) == ("0.0001234", "−12", "–")
    assert (whole(1234567), whole(None)) == ("1\u202f234\u202f567", "–")
    assert (duration(4.26), duration(425), duration(12010)) == ("4.26 s", "7 min 5 s", "3 h 20 min")
