"""The classes in the report: every figure is there, strangers' text is escaped, damage is one line."""

import json
import random
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from pages import own, scripts_of

from anomaly_lab.reports import classes
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import UserError

FUZZED = 60


def page_of(run):
    return write_report(run).read_text(encoding="utf-8")


def test_the_section_shows_every_class_with_its_figures(labelled_run):
    page = page_of(labelled_run)
    content = json.loads((labelled_run / "metrics.json").read_text())["classes"]
    section = page[page.index('<section id="classes">') : page.index('<section id="curves">')]
    assert '<a href="#classes">Classes</a>' in page
    for name in (title for titles in classes.FIGURES for title in titles.values()):
        assert f">{name}</th>" in section
    for name in content["names"][:2]:
        assert f"<th>{name}</th>" in section
        assert f"{content['each'][name]['average_precision']['value']:.3f}".lstrip("0") in section
    assert "Temperature" in section
    assert "40 validation cases" in section
    assert "rule “last”, iteration 2" in section
    assert section.count("<svg") >= (3 if content["task"] == "multiclass" else 2)
    assert "Anomalous against normal" in section
    assert ("always naming “normal”" in section) == (content["task"] == "multiclass")


def test_pictures_say_what_a_case_is_and_how_probable_the_class(labelled_run):
    page = page_of(labelled_run)
    table = read_run(labelled_run).classes
    assert page.count("Pictures: ") == 3
    name, case = table.classes[0], table.id[-1]
    probability = f"{table.probability[-1, 0]:.3f}".lstrip("0")
    assert f'<b>{case}</b><span>{name} <b class="num">{probability}</b></span>' in page


def test_strangers_text_is_escaped(labelled_run):
    page = page_of(labelled_run)
    assert scripts_of(page) == own()


def test_a_run_without_labels_has_nothing_of_it(fake_run):
    page = page_of(fake_run)
    assert 'id="classes"' not in page
    assert "#classes" not in page
    assert ".cell" not in page


def test_what_cannot_be_measured_stands_at_the_top(labelled_run, edit):
    edit(labelled_run / "metrics.json", lambda content: content["classes"]["remarks"].append("Saw: no test case"))
    page = page_of(labelled_run)
    assert page.index("Saw: no test case") < page.index("<main>")


@pytest.mark.parametrize("task", ["multiclass"])
def test_a_confusion_matrix_that_does_not_suit_the_classes_is_not_drawn(task):
    content = {"names": ["a", "b"], "confusion": [[1, 2]], "each": {}}
    assert [panel.title for panel in classes.panels(content)] == ["Average precision"]


def test_a_part_of_the_section_is_enough(fake_run, edit):
    for part in ({"task": "multilabel"}, {"names": ["a"]}, {"each": {"a": {}}}, {"calibration": {"temperature": 2.0}}):
        edit(fake_run / "metrics.json", lambda content, part=part: content.update(classes=part))
        assert 'id="classes"' in page_of(fake_run)


def refused(act, run: Path) -> bool:
    """Whether a damaged run is refused, in one line that names the file, and not simply read."""
    try:
        act()
    except UserError as error:
        said = str(error)
        return said.startswith(str(run)) and "\n" not in said
    return False


def test_damaged_metrics_of_classes_are_shown_or_refused_in_one_line(labelled_run: Path) -> None:
    draw, path = random.Random(0), labelled_run / "metrics.json"
    whole, times = json.loads(path.read_text()), 0
    for _ in range(FUZZED // 5):
        path.write_text(json.dumps(whole | {"classes": fuzzing.edited(draw, whole["classes"])}, skipkeys=True))
        times += refused(lambda: page_of(labelled_run), labelled_run)
    assert 0 < times < FUZZED // 5


def test_a_damaged_table_of_classes_is_read_or_refused_in_one_line(labelled_run: Path) -> None:
    draw, path = random.Random(0), labelled_run / "classes.csv"
    whole, times = path.read_bytes(), 0
    for _ in range(FUZZED):
        path.write_bytes(whole)
        draw.choice([fuzzing.lines_edited, fuzzing.torn])(draw, path)
        times += refused(lambda: read_run(labelled_run), labelled_run)
    assert FUZZED / 3 < times < FUZZED
    path.unlink()
    path.symlink_to(path)
    assert read_run(labelled_run).classes is None


def test_the_gallery_of_a_class_keeps_its_order(labelled_run):
    gallery = read_run(labelled_run).gallery
    with np.load(labelled_run / "samples" / "gallery.npz") as stored:
        expected = stored["id"][stored["kind"] == "missed:1"].tolist()
    assert [case["id"] for case in gallery["missed:1"]] == expected
