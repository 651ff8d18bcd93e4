"""Findings: figures of the records, paired over seeds, tested on common cases."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_runs import small_study, write_run

from anomaly_lab.studies.decisions import gains
from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.page.page import banners
from anomaly_lab.studies.page.table import markdown
from anomaly_lab.studies.plan import Key


def test_lines_have_every_shown_row_and_the_floors(findings):
    lines = findings.lines
    assert [line.title for line in lines] == ["Good †", "Fair †", "Poor †", "Mean-image distance"]
    good = lines[0].cells["set"]
    aurocs = [result.figure() for result in findings.of("good", "set").values()]
    assert good.summary.mean == pytest.approx(np.mean(aurocs))
    assert good.summary.sd == pytest.approx(np.std(aurocs, ddof=1))
    assert good.paper == 0.9
    assert lines[2].cells["set"].summary.n == 2
    assert (lines[3].is_baseline, lines[3].cells["set"].summary.n) == (True, 3)


def test_a_row_is_marked_wherever_its_title_stands_if_a_run_of_it_has_a_caveat(tmp_path):
    cheat = {"source": "real", "detector": {"caveats": ["chosen by test labels"]}}
    runs = {
        Key("good", "set", 0): write_run(tmp_path / "a", 1.0, source="real"),
        Key("fair", "set", 0): write_run(tmp_path / "b", 1.0, **cheat),
    }
    found = read_findings(small_study(), runs, {})
    assert [line.title for line in found.lines][:2] == ["Good", "Fair †"]
    assert found.caveats() == {"chosen by test labels": ["Fair"]}


def test_remarks_on_the_data_are_said_once_whatever_their_figures(tmp_path):
    def run(seed: int, *remarks: str) -> Path:
        return write_run(tmp_path / f"{seed}", 1.0, seed, data={"remarks": list(remarks)})

    runs = {
        Key("good", "set", 0): run(0, "14 of 34 have a neighbour.", "One file is odd."),
        Key("good", "set", 1): run(1, "15 of 33 have a neighbour."),
        Key("fair", "set", 2): run(2),
    }
    found = read_findings(small_study(), runs, {})
    assert found.remarks("set") == [
        "14 of 34 have a neighbour. (2 splits have such figures; these are of the first.)",
        "One file is odd.",
    ]
    assert found.remarks("other") == []
    assert [banner.text for banner in banners(found) if banner.title.startswith("Data: ")] == found.remarks("set")
    assert all(f"Set: {remark}" in markdown(found) for remark in found.remarks("set"))


def test_a_single_seed_has_the_interval_of_its_split(tmp_path):
    only = read_findings(small_study(), {Key("good", "set", 0): write_run(tmp_path / "r", 1.0)}, {})
    cell = only.lines[0].cells["set"]
    assert math.isnan(cell.summary.sd)
    assert 0 < cell.low < cell.summary.mean < cell.high < 1


def test_tests_pair_the_seeds_that_both_have_and_correct_within_the_data_set(findings):
    fair, poor, floor = findings.tests()
    assert (fair.row, fair.paired.n, poor.paired.n) == ("fair", 3, 2)
    assert fair.paired.difference < 0
    assert fair.cases == 60
    tests = sorted((fair, poor, floor), key=lambda test: test.delong.p)
    assert tests[0].delong_holm == pytest.approx(3 * tests[0].delong.p)
    assert fair.delong_holm >= fair.delong.p


def test_the_floors_are_held_against_the_reference_too(findings):
    *_, floor = findings.tests()
    ours, theirs = findings.of("good", "set"), findings.baseline("mean_image", "set")
    assert (floor.row, findings.title(floor.row)) == ("mean_image", "Mean-image distance")
    assert floor.paired.difference == pytest.approx(np.mean([theirs[s].figure() - ours[s].figure() for s in (0, 1, 2)]))
    assert floor.delong.a == pytest.approx(theirs[0].figure())


def test_a_row_may_name_what_it_is_tested_against(findings):
    rows = findings.study.rows
    other = replace(
        findings, study=replace(findings.study, rows=rows | {"poor": replace(rows["poor"], against="fair")})
    )
    fair, poor, floor = other.tests()
    assert [(test.row, test.base) for test in (fair, poor, floor)] == [
        ("fair", "good"), ("poor", "fair"), ("mean_image", "good"),
    ]  # fmt: skip
    theirs, ours = findings.of("poor", "set"), findings.of("fair", "set")
    assert poor.paired.difference == pytest.approx(np.mean([theirs[s].figure() - ours[s].figure() for s in theirs]))
    assert gains(other, "set")["poor"]["auroc"].mean == poor.paired.difference


def test_even_the_reference_may_and_one_that_is_not_shown_is_none(findings):
    rows = findings.study.rows
    named = rows | {"good": replace(rows["good"], against="fair"), "poor": replace(rows["poor"], against="base")}
    found = replace(findings, study=replace(findings.study, rows=named)).tests()
    assert {test.row: test.base for test in found} == {
        "good": "fair", "fair": "good", "poor": "good", "mean_image": "good",
    }  # fmt: skip


def test_order_as_published(findings):
    found = findings.agreement()["set"]
    assert (found.n, found.spearman, found.kendall) == (3, pytest.approx(1), pytest.approx(1))


def test_cost_tells_what_another_run_had_done(tmp_path):
    lent = {"started_from": {"phase": "gan", "iterations": 10, "seconds": 60.0}, "seconds": {"encoder": 30.0}}
    runs = {Key("good", "set", seed): write_run(tmp_path / str(seed), 1.0, seed, **lent) for seed in (0, 1)}
    cost = read_findings(small_study(), runs, {}).costs()["good", "set"]
    assert cost == ({"gan": 10, "encoder": 5}, "gan", 30.0, 2.0, 60.0, 0.5)
