"""Two runs are compared on the cases both have judged, patient by patient."""

import math
from dataclasses import replace

import numpy as np
import pytest
from study_runs import small_study, write_run

from anomaly_lab.metrics.comparison import delong
from anomaly_lab.metrics.ranking import auroc
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.plan import Key
from anomaly_lab.studies.results import Result, within_split


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
        replace(r, id=np.arange(120), label=np.tile(r.label, 2), score=np.tile(r.score, 2), baselines={})
        for r in (a, b)
    ]
    alike = [replace(r, patient=np.tile(a.patient, 2)) for r in twice]
    apart = [replace(r, patient=r.id.astype(str)) for r in twice]
    assert within_split(*alike)[1].p == pytest.approx(within_split(a, b)[1].p)
    assert within_split(*alike)[1].p > within_split(*apart)[1].p
    findings = [Findings(small_study(), {Key("good", "set", 0): pair[0]}) for pair in (apart, alike)]
    narrow, wide = (found.lines[0].cells["set"] for found in findings)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_cases_that_are_not_the_same_are_not_compared(tmp_path):
    a = Result.read(write_run(tmp_path / "a", 1.0))
    b = replace(a, label=1 - a.label)
    assert within_split(a, b)[0] == 0
    assert math.isnan(within_split(a, b)[1].p)
