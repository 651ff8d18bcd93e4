"""Intervals of a study: runs that judge partly the same patients, decisions of baselines, few patients."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_runs import judged, small_study, write_run

from anomaly_lab.metrics import joint
from anomaly_lab.metrics.joint import Sample
from anomaly_lab.studies.decisions import decisions
from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.intervals import over_pairs, over_runs, too_few
from anomaly_lab.studies.page import page, table
from anomaly_lab.studies.plan import Key
from anomaly_lab.studies.results import Result

RATES = ("accuracy", "balanced_accuracy", "recall", "specificity", "f1")


def runs(tmp_path: Path, number: int = 3, shift: float = 1.0, offset: int = 0) -> list[Result]:
    return [Result.read(judged(write_run(tmp_path / f"{shift}{seed}", shift, seed + offset))) for seed in range(number)]


def part_of(run: Result, cases: np.ndarray) -> Result:
    """The run, as if it had judged these cases alone."""
    baselines = {name: values[cases] for name, values in run.baselines.items()}
    id, patient, label, score = (values[cases] for values in (run.id, run.patient, run.label, run.score))
    return replace(run, id=id, patient=patient, label=label, score=score, baselines=baselines)


def test_runs_that_judge_partly_the_same_patients_count_each_of_them_once(tmp_path: Path) -> None:
    whole = runs(tmp_path)
    parts = [part_of(run, np.arange(10 * k, 10 * k + 40)) for k, run in enumerate(whole)]
    found = over_runs(parts, ["auroc", "average_precision", *RATES])
    assert found["auroc"] == joint.auroc([Sample(run.label, run.score, run.patient) for run in parts])
    for metric in ("average_precision", *RATES):
        assert found[metric].patients == (30, 30)
        assert 0 <= found[metric].low < found[metric].value < found[metric].high <= 1
    for metric in ("recall", "f1"):
        expected = np.mean([_decided(run, metric) for run in parts])
        assert found[metric].value == pytest.approx(expected)


def _decided(run: Result, metric: str) -> float:
    called, sick = run.score > run.threshold, run.label == 1
    hits, misses, alarms = ((called & sick).sum(), (~called & sick).sum(), (called & ~sick).sum())
    return hits / (hits + misses) if metric == "recall" else 2 * hits / (2 * hits + misses + alarms)


def test_pairs_are_compared_on_the_cases_that_both_judged(tmp_path: Path) -> None:
    ours, theirs = runs(tmp_path), runs(tmp_path, shift=0.3, offset=7)
    parts = [part_of(run, np.arange(5 * k, 50)) for k, run in enumerate(theirs)]
    found = over_pairs(list(zip(ours, parts, strict=True)), ["auroc", "accuracy"])
    samples = [
        Sample(b.label, a.score[5 * k : 50], b.patient, b.score)
        for k, (a, b) in enumerate(zip(ours, parts, strict=True))
    ]
    assert found["auroc"] == joint.auroc_difference(samples)
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high
    assert 0 < found["accuracy"].p < 1
    stranger = replace(parts[0], id=np.char.add(parts[0].id, "x"))
    assert over_pairs([(ours[0], stranger), (ours[1], parts[1])], ["auroc"]) == {}


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    pairs = list(zip(runs(tmp_path), runs(tmp_path, shift=0.3), strict=True))
    one, other = (over_pairs(each, ["auroc", "f1"]) for each in (pairs, [(b, a) for a, b in pairs]))
    for metric in ("auroc", "f1"):
        assert one[metric].low == pytest.approx(-other[metric].high)
        assert one[metric].p == pytest.approx(other[metric].p)


def test_a_baselines_decisions_are_told_from_its_figures(tmp_path: Path) -> None:
    """Its threshold is not in metrics.json."""
    findings = read_findings(small_study(), {Key("good", "set", 0): judged(write_run(tmp_path / "r", 1.0))}, {})
    (baseline,) = findings.baseline("mean_image", "set").values()
    assert math.isnan(baseline.threshold)
    figures = baseline.weighted(list(RATES), np.arange(60))(np.ones((60, 1), np.int32))
    for metric in RATES:
        assert figures[metric].item() == pytest.approx(baseline.decided(metric)), metric


def test_decisions_over_seeds_have_the_interval_for_new_patients(tmp_path: Path) -> None:
    keys = {Key("good", "set", seed): judged(write_run(tmp_path / str(seed), 1.0, seed)) for seed in range(3)}
    findings = read_findings(small_study(), keys, {})
    row, baseline, *trivial = decisions(findings, "set").lines
    found = over_runs(list(findings.of("good", "set").values()), ["recall"])["recall"]
    assert row.figure("recall")[3:] == pytest.approx((found.low, found.high))
    assert baseline.figure("f1").low < baseline.figure("f1").mean < baseline.figure("f1").high
    assert all(math.isnan(rule.figure("accuracy").low) for rule in trivial)  # it is the share of a class, no estimate


def test_few_patients_have_a_sentence_on_the_page_and_no_interval(tmp_path: Path) -> None:
    keys = {
        Key(row, "set", seed): judged(write_run(tmp_path / f"{row}{seed}", shift, seed, n=8))
        for row, shift in (("good", 1.0), ("fair", 0.5))
        for seed in range(3)
    }
    findings = read_findings(small_study(), keys, {})
    sentence = "No intervals: 4 normal and 4 anomalous patients were judged, and an interval needs 5 of each."
    assert too_few(list(findings.of("good", "set").values())) == sentence
    cell = findings.lines[0].cells["set"]
    assert math.isnan(cell.low)
    assert not math.isnan(cell.same_patients[0])
    assert math.isnan(findings.tests()[0].joint.p)
    text, made = page.render(findings), table.markdown(findings)
    assert sentence in text
    assert sentence in made
    assert "[nan" not in text
    assert "[–" not in text
    assert "[–" not in made
