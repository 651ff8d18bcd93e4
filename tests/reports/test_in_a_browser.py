"""The pages in a browser, with mouse and keyboard, at both widths, light and dark; and without scripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Opener, everywhere, overflows, until
from jinja2 import ChoiceLoader, DictLoader

from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.confusion import confusion
from anomaly_lab.reports.html import environment
from anomaly_lab.reports.prediction_page import Exhibit, Finding, Scoring, slices, views
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import write_report

TABLE = """{% extends "page.html.j2" %}{% block main %}
<table class="compare sortable"><thead><tr><th></th><th>Score</th><th>Name</th></tr></thead><tbody>
{% for name, score, word in rows %}
<tr><th>{{ name }}</th><td data-label="Score">{{ score }}</td><td data-label="Name">{{ word }}</td></tr>
{% endfor %}<tr class="last"><th>Mean</th><td data-label="Score">99</td><td>all</td></tr></tbody></table>
{% endblock %}"""
ROWS = [("a", ".812 [.74, .88]", "case 10"), ("b", "−12", "case 9"), ("c", "–", "Case 2"), ("d", "1\u202f024", "zebra"),
        ("e", "1.2e−05", "")]  # fmt: skip


def firsts(page: Any) -> str:
    return "".join(page.locator("tbody th").all_inner_texts())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    jinja = environment()
    assert jinja.loader is not None
    jinja.loader = ChoiceLoader([DictLoader({"a.html.j2": TABLE}), jinja.loader])
    (tmp_path / "table.html").write_text(jinja.get_template("a.html.j2").render(rows=ROWS))
    return tmp_path / "table.html"


@everywhere
def test_a_table_is_sorted_by_mouse_and_keyboard(open_page: Opener, table: Path, width: int, scheme: str) -> None:
    page = open_page(table, width, scheme)
    score, name = page.get_by_role("button", name="Score"), page.get_by_role("button", name="Name", exact=True)
    head = page.locator("th", has=score)
    for order, state in (("daebcMean", "descending"), ("beadcMean", "ascending"), ("abcdeMean", None)):
        score.click()
        assert (firsts(page), head.get_attribute("aria-sort")) == (order, state)
    name.last.focus()
    page.keyboard.press("Enter")
    assert firsts(page) == "cbadeMean"  # numbers in words as numbers, what is empty last
    page.keyboard.press("Space")
    assert firsts(page) == "dabceMean"
    assert page.locator("[aria-sort]").count() == 1
    assert not overflows(page)


@everywhere
def test_a_picture_is_enlarged_blended_and_outlined(open_page: Opener, fake_run: Path, width: int, scheme: str) -> None:
    page = open_page(write_report(fake_run), width, scheme)
    dialog, doors = page.locator("dialog"), page.locator("#cases .gallery .picture[tabindex]")
    assert doors.count() == page.locator("#cases .gallery .case").count()  # one halt of the tabulator for each case
    first, second = (doors.nth(i).locator("img").get_attribute("src") for i in range(2))
    doors.first.focus()
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    base, over = dialog.locator(".view img").first, dialog.locator(".over")
    assert base.get_attribute("src") == first
    until(page, "document.querySelector('dialog .view img').getBoundingClientRect().width >= 64 * 4")
    assert over.is_hidden()
    assert "64 × 64 pixels" in dialog.locator(".title").inner_text()
    dialog.get_by_label("over the original").select_option("Anomaly map over the input")
    assert over.get_attribute("src") == page.locator("#cases .stack").first.locator("img").last.get_attribute("src")
    blend = dialog.get_by_label("blend")
    blend.focus()
    page.keyboard.press("Home")
    assert over.evaluate("it => it.style.opacity") == "0"
    blend.fill("40")
    assert over.evaluate("it => it.style.opacity") == "0.4"
    outlines = dialog.locator("svg path")
    assert outlines.count() == 2
    dialog.get_by_label("outline").uncheck()
    assert outlines.count() == 0
    dialog.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    assert base.get_attribute("src") == second
    assert dialog.get_by_label("over the original").input_value() == "Anomaly map over the input"
    dialog.get_by_role("button", name="Previous").click()
    assert base.get_attribute("src") == first
    dialog.get_by_role("button", name="1 : 1").click()
    assert base.evaluate("it => it.getBoundingClientRect().width") == 64
    assert not overflows(page)
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.locator("#cases .stack").first.locator(".picture").last.click()  # the map itself
    assert over.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert dialog.is_hidden()


@everywhere
def test_another_threshold_recounts_the_table_and_is_called_an_exploration(
    open_page: Opener, fake_run: Path, width: int, scheme: str
) -> None:
    report = write_report(fake_run)
    page = open_page(report, width, scheme)
    explorer = page.locator(".explorer")

    def counts() -> dict[str, str]:
        cells = explorer.locator("[data-count]").all()
        return {str(cell.get_attribute("data-count")): cell.inner_text() for cell in cells}

    def expected(threshold: float) -> dict[str, str]:
        found = confusion(read_run(fake_run).scores, threshold)
        assert found is not None
        of_counts = {key: str(getattr(found, key)) for key in ("tp", "fp", "fn", "tn")}
        return of_counts | {key: rate(getattr(found, key)) for key in ("sensitivity", "specificity")}

    scores = sorted(row["score"] for row in read_run(fake_run).scores if row["split"] == "test")
    own, slider, state = 0.3217, explorer.get_by_label("Explore another threshold"), explorer.locator(".state")
    assert counts() == expected(own)
    assert "At the run’s threshold" in state.inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert counts() == expected(min(score for score in scores if score > own))
    assert "Exploration, not a result" in state.inner_text()
    page.keyboard.press("Home")
    assert counts() == expected(-1e9)
    page.keyboard.press("End")
    assert counts() == expected(scores[-1])
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert 0 < int(counts()["tp"]) < 60
    mark = explorer.locator(".mark").bounding_box()
    explorer.get_by_role("button", name="Back to the run’s threshold").click()
    assert counts() == expected(own)
    share = slider.evaluate("it => it.value / it.max")  # the mark stands below the thumb
    assert abs(mark["x"] + mark["width"] / 2 - (box["x"] + 8 + share * (box["width"] - 16))) < 2
    assert not overflows(page)


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """A page on two volumes of thirty slices and a picture."""
    rng, depth = np.random.default_rng(0), 30
    scores = {"a.nii": 3.0, "b.nii": 0.5, "c 10.png": 9.0, "c 9.png": 0.1}
    findings = [Finding(name, score, 0.1, score > 1) for name, score in scores.items()]
    findings.append(Finding("torn.png", reason="it ends early"))
    exhibits = [(2, Exhibit(views(rng.uniform(-1, 1, (1, 40, 40)), np.eye(40, dtype=np.float32), None)))]
    for number in (0, 1):
        image = np.broadcast_to(np.linspace(-1, 1, depth)[None, :, None, None], (1, depth, 20, 20))
        anomaly_map, mask = np.zeros((depth, 20, 20), np.float32), np.zeros((depth, 20, 20), bool)
        anomaly_map[9, 5:9, 5:9], mask[9, 5:9, 5:9] = 2, True
        shown = Exhibit(views(image, anomaly_map, mask), 0.9, slices(image, anomaly_map, mask))
        exhibits.append((number, shown))
    scoring = Scoring("a run", {}, {"threshold": {"value": 1.0}}, 3, normal_scores=[0.2, 0.4, 0.9])
    (tmp_path / "index.html").write_text(prediction_page.render(scoring, findings, exhibits))
    return tmp_path / "index.html"


@everywhere
def test_a_volume_is_scrolled_by_wheel_keys_and_slider(
    open_page: Opener, predicted: Path, width: int, scheme: str
) -> None:
    page = open_page(predicted, width, scheme)
    dialog = page.locator("dialog")
    title, slider, stage = dialog.locator(".title"), dialog.get_by_label("slice"), dialog.locator(".stage")
    page.locator(".volume .picture").first.click()
    assert dialog.is_visible()
    assert slider.input_value() == "9"  # the slice that was clicked, the tenth
    assert "slice 10 of 30" in page.locator(".volume img").first.get_attribute("alt")
    stage.hover()
    page.mouse.wheel(0, 100)
    until(page, "document.querySelector('dialog .title').textContent.includes('slice 11 ')")
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    until(page, "document.querySelector('dialog .title').textContent.includes('slice 9 ')")
    assert dialog.locator("svg path").count() == 0  # the lesion is in the tenth
    stage.focus()
    page.keyboard.press("ArrowDown")
    assert slider.input_value() == "9"
    assert dialog.locator("svg path").count() == 2
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    assert slider.input_value() == "6"
    slider.focus()
    page.keyboard.press("End")
    until(page, "document.querySelector('dialog .title').textContent.includes('slice 30 ')")
    sources = set()
    for place in range(30):
        slider.fill(str(place))
        sources.add(dialog.locator(".view img").first.get_attribute("src"))
    assert len(sources) == 30
    dialog.get_by_label("over the original").select_option("Anomaly map")
    slider.fill("9")
    assert dialog.locator(".over").is_visible()
    stage.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('dialog .title').textContent.includes('b.nii')")
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.get_by_role("button", name="Scroll 30 slices").last.click()
    assert dialog.is_visible()
    assert "b.nii" in title.inner_text()
    assert not overflows(page)


@everywhere
def test_new_files_are_sorted_and_their_thumbnails_lead_to_the_pictures(
    open_page: Opener, predicted: Path, width: int, scheme: str
) -> None:
    page = open_page(predicted, width, scheme)
    names = page.locator("#scores tbody th")
    assert names.all_inner_texts() == ["c 10.png", "a.nii", "b.nii", "c 9.png"]
    page.locator("#scores").get_by_role("button", name="File").click()
    assert names.all_inner_texts() == ["a.nii", "b.nii", "c 9.png", "c 10.png"]
    page.locator("#scores").get_by_role("button", name="Among normals").focus()
    page.keyboard.press("Enter")
    assert names.all_inner_texts() == ["c 10.png", "a.nii", "b.nii", "c 9.png"]
    page.get_by_role("link", name="Pictures of b.nii").click()
    until(page, "document.querySelector('#case-2').getBoundingClientRect().top < innerHeight")
    assert "b.nii" in page.locator("#case-2").inner_text()
    assert page.get_by_role("img", name="higher than 2 of 3 normals of the run").count() == 1
    assert not overflows(page)


@pytest.mark.slow
def test_without_scripts_a_page_shows_as_much(open_page: Opener, fake_run: Path) -> None:
    page = open_page(write_report(fake_run), scripts=False)
    text = re.sub(r"\s+", " ", page.locator("main").inner_text())
    for part in ("False negatives", "Leakage audit", "How the numbers were computed"):
        assert part in text
    assert page.locator("dialog").count() == 0
    for waiting in (".blend", ".slide"):
        assert not page.locator(waiting).first.is_visible()
