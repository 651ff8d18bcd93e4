"""Findings and their table: figures of the records, paired over seeds, tested on common cases."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from study_runs import write_run

from anomaly_lab.metrics.comparison import delong
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.studies import table
from anomaly_lab.studies.findings import Findings, read_findings
from anomaly_lab.studies.plan import DataSet, Key, Row, Study
from anomaly_lab.studies.results import Result, within_split


def study(**over) -> Study:
    rows = {
        "good": Row("Good", "x", paper={"set": 0.9}, notes=["n"]),
        "fair": Row("Fair", "x", paper={"set": 0.8}),
        "poor": Row("Poor", "x", paper={"set": 0.7}),
        "base": Row("Base", "x", hidden=True),
    }
    return Study(**({"name": "s", "title": "S", "datasets": {"set": DataSet("Set")}, "rows": rows,
                     "footnotes": {"n": "We chose this."}} | over))  # fmt: skip


@pytest.fixture
def findings(tmp_path):
    runs = {
        Key(row, "set", seed): write_run(tmp_path / f"{row}{seed}", shift, seed)
        for row, shift in (("good", 2.5), ("fair", 1.0), ("poor", 0.2), ("base", 1.0))
        for seed in (0, 1, 2)
        if (row, seed) != ("poor", 2)
    }
    return read_findings(study(), runs, {Key("poor", "set", 2): "it broke"})


def test_lines_have_every_shown_row_and_the_floors(findings):
    lines = findings.lines
    assert [line.title for line in lines] == ["Good †", "Fair †", "Poor †", "Mean-image distance"]
    good = lines[0].cells["set"]
    aurocs = [result.figure() for result in findings.of("good", "set").values()]
    assert good.summary.mean == pytest.approx(np.mean(aurocs))
    assert good.summary.sd == pytest.approx(np.std(aurocs, ddof=1))
    assert good.paper == 0.9
    assert lines[2].cells["set"].summary.n == 2
    assert (lines[3].floor, lines[3].cells["set"].summary.n) == (True, 3)


def test_a_row_is_marked_wherever_its_title_stands_if_a_run_of_it_has_a_caveat(tmp_path):
    cheat = {"source": "real", "detector": {"caveats": ["chosen by test labels"]}}
    runs = {
        Key("good", "set", 0): write_run(tmp_path / "a", 1.0, source="real"),
        Key("fair", "set", 0): write_run(tmp_path / "b", 1.0, **cheat),
    }
    found = read_findings(study(), runs, {})
    assert [line.title for line in found.lines][:2] == ["Good", "Fair †"]
    assert found.caveats() == {"chosen by test labels": ["Fair"]}
    assert "† Fair: chosen by test labels" in table.markdown(found)
    assert table.TWIN not in table.markdown(found)


def test_a_single_seed_has_the_interval_of_its_split(tmp_path):
    only = read_findings(study(), {Key("good", "set", 0): write_run(tmp_path / "r", 1.0)}, {})
    cell = only.lines[0].cells["set"]
    assert math.isnan(cell.summary.sd)
    assert 0 < cell.low < cell.summary.mean < cell.high < 1
    assert table.words(cell).endswith("] ×1")
    assert table.words(only.lines[1].cells["set"]) == "–"


def test_tests_pair_the_seeds_that_both_have_and_correct_within_the_data_set(findings):
    fair, poor = findings.tests()
    assert (fair.row, fair.paired.n, poor.paired.n) == ("fair", 3, 2)
    assert fair.paired.difference > 0
    assert fair.cases == 60
    assert poor.delong_holm == pytest.approx(2 * poor.delong.p)
    assert fair.delong_holm >= fair.delong.p


def test_delong_takes_the_cases_that_both_judged(tmp_path):
    whole = Result.read(write_run(tmp_path / "a", 1.0, seed=3))
    other = Result.read(write_run(tmp_path / "b", 1.0, seed=4))
    columns = ("id", "patient", "label", "score")
    part = replace(other, **{name: getattr(other, name)[10:40][::-1] for name in columns})
    cases, result = within_split(whole, part)
    assert cases == 30
    assert result == pytest.approx(delong(whole.label[10:40], whole.score[10:40], other.score[10:40]))
    assert result.a == pytest.approx(auroc(whole.label[10:40], whole.score[10:40]))


def test_many_cases_of_few_patients_make_intervals_wider_and_tests_weaker(tmp_path):
    a, b = (Result.read(write_run(tmp_path / name, 1.0, seed=i)) for i, name in enumerate("ab"))
    twice = [
        replace(r, id=np.arange(120), label=np.tile(r.label, 2), score=np.tile(r.score, 2), floors={}) for r in (a, b)
    ]
    alike = [replace(r, patient=np.tile(a.patient, 2)) for r in twice]
    apart = [replace(r, patient=r.id.astype(str)) for r in twice]
    assert within_split(*alike)[1].p == pytest.approx(within_split(a, b)[1].p)
    assert within_split(*alike)[1].p > within_split(*apart)[1].p
    key, others = Key("good", "set", 0), {}
    narrow, wide = (Findings(study(), {key: r[0]}, others).lines[0].cells["set"] for r in (apart, alike))
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_cases_that_are_not_the_same_are_not_compared(tmp_path):
    a = Result.read(write_run(tmp_path / "a", 1.0))
    b = replace(a, label=1 - a.label)
    assert within_split(a, b)[0] == 0
    assert math.isnan(within_split(a, b)[1].p)


def test_order_as_published(findings):
    found = findings.agreement()["set"]
    assert (found.n, found.spearman, found.kendall) == (3, pytest.approx(1), pytest.approx(1))


def test_cost_tells_what_another_run_had_done(tmp_path):
    lent = {"started_from": {"phase": "gan", "iterations": 10, "seconds": 60.0}, "seconds": {"encoder": 30.0}}
    runs = {Key("good", "set", seed): write_run(tmp_path / str(seed), 1.0, seed, **lent) for seed in (0, 1)}
    cost = read_findings(study(), runs, {}).costs()["good", "set"]
    assert cost == ({"gan": 10, "encoder": 5}, "gan", 30.0, 2.0, 60.0, 0.5)


def test_markdown_and_csv_say_the_same(findings):
    text = table.markdown(findings)
    assert "| Good † [1] |" in text
    assert f"† {table.TWIN}" in text
    assert "[1] We chose this." in text
    assert "missing: poor-set-seed2: it broke" in text
    rows = list(csv.DictReader(io.StringIO(table.table_csv(findings))))
    assert float(rows[0]["mean"]) == pytest.approx(findings.lines[0].cells["set"].summary.mean, rel=1e-5)
    assert [row["published"] for row in rows] == ["0.9", "0.8", "0.7", ""]
    runs = list(csv.DictReader(io.StringIO(table.runs_csv(findings))))
    assert len(runs) == len(findings.results)
    assert (runs[0]["seconds"], runs[0]["peak_gb"], runs[0]["test_normal"]) == ("90", "0.5", "30")
