import xml.etree.ElementTree as ET

import numpy as np
import pytest

from anomaly_lab.evaluation.protocol import without_nan
from anomaly_lab.evaluation.shortcuts.audit import Column, audit
from anomaly_lab.reports.shortcuts import DRAWN, banners, panels, panels_of_detector

from .conftest import HOSTILE


def rule(title="width", kind="files", value=0.8, alarm=True, **changes):
    figures = {"auroc": {"value": value, "low": value - 0.05, "high": value + 0.05}, "told": max(value, 1 - value)}
    return {"name": title, "title": title, "kind": kind, "p": 0.01, "chance": 0.1, "alarm": alarm} | figures | changes


def found(*rules, **changes):
    counts = {"normal": 20, "anomalous": 30}
    return {"cases": counts, "of": counts, "patients": 50, "unit": "image", "rules": [*rules], "constant": []} | changes


def text(*rules, **changes):
    return banners(found(*rules, **changes))[0].text


def test_without_an_alarm_nothing_is_said():
    assert banners(None) == banners(found()) == banners(found(rule(alarm=False))) == []
    assert banners(found(rule("number in the file name", "names", 1.0))) == []


def test_the_strongest_of_each_kind_is_named_and_the_others_are_counted():
    others = [rule("height", value=0.79), rule("mean grey", "greys", 0.25), rule("noise", "textures", 0.72)]
    said = text(rule(), *others)
    assert text(rule(), score=0.7).endswith(" This detector has .70.")
    drawn = {"cases": {"normal": 500, "anomalous": 500}, "of": {"normal": 900, "anomalous": 500}}
    assert text(rule(), score=0.7, **drawn).endswith(" This detector has .70 on these 1000 of them.")
    assert said.startswith(
        "This set can be told apart by the width of the file (AUROC .80, higher in anomalous images)"
    )
    assert "the mean grey (AUROC .75, higher in normal images), the noise" in said
    assert "and 1 more rule. " in said
    assert "ruler" in said


def test_pixels_may_be_the_anomaly_itself():
    said = text(rule("mean grey", "greys", 0.75), rule("median grey", "greys", 0.74), unit="patch")
    assert "by the mean grey (AUROC .75, higher in anomalous patches) and the median grey (AUROC .74" in said
    assert "may be the anomaly itself" in said


def test_headers_are_called_so():
    scanner = rule("header: Manufacturer", value=0.9, text=True)
    assert "the Manufacturer in the header (AUROC .90). " in text(scanner)
    assert "the KVP in the header (AUROC .90, higher in anomalous images)" in text(rule("header: KVP", value=0.9))


def test_a_chart_for_each_kind_shows_the_strongest_and_counts_the_rest():
    rules = [rule(f"rule {i}", "greys", 0.9 - i / 100, alarm=i < 3) for i in range(DRAWN + 4)]
    greys, files = panels(found(*rules, rule()))
    assert (greys.title, files.title) == ("Greys and colours", "Files and their headers")
    assert greys.svg.count("<circle") == DRAWN
    assert greys.svg.count("quiet") == 2 * (DRAWN - 3)
    assert greys.note.startswith("4 weaker rules")


def test_a_run_shows_what_its_score_follows_and_the_detector_among_like_cases():
    stratum = {"name": "x", "title": "width", "auroc": {"value": 0.6, "low": 0.5, "high": 0.7}, "pairs": 0.2}
    followed, among = panels_of_detector(found(rule(follows=-0.7), score=0.8, strata=[stratum]))
    assert followed.title == "What the score follows in normals"
    assert "width −0.7" in followed.svg
    assert "Like width, 20 %" in among.svg
    assert ".600 [.50, .70]" in among.svg
    assert panels_of_detector(found(rule())) == []


@pytest.mark.parametrize("values", [np.full(40, np.nan), np.arange(40.0), np.repeat([0.0, 1.0], 20)])
def test_whatever_an_audit_finds_can_be_drawn_and_no_text_is_code(values):
    label = np.repeat([0, 1], 20)
    columns = {
        "x": Column(HOSTILE, "files", values),
        "text": Column("text", "files", np.array(["a", "b"] * 20)),
        "n": Column("n", "names", np.arange(40.0)),
    }
    result = audit(label, [str(i) for i in range(40)], columns, np.random.default_rng(0).normal(label))
    result = without_nan(result) | {k: [without_nan(entry) for entry in result[k]] for k in ("rules", "strata")}
    for panel in [*panels(result), *panels_of_detector(result)]:
        ET.fromstring(panel.svg)
        assert "nan" not in panel.svg
