"""Decisions: as metrics.json has them, beside rules that look at no image; differences paired over seeds or cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
from study_runs import judged, write_run

from anomaly_lab.experiment.run_folder import read_json, write_json
from anomaly_lab.metrics.joint import Sample, auroc_difference
from anomaly_lab.studies.decisions import Gain, decisions, gains
from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.plan import DataSet, Key, Row, Study

STUDY = Study(
    name="s",
    title="S",
    datasets={"set": DataSet("Set"), "none": DataSet("None")},
    rows={"good": Row("Good", "x"), "poor": Row("Poor", "x"), "late": Row("Late", "x")},
)


@pytest.fixture
def findings(tmp_path):
    runs = {
        Key(row, "set", seed): judged(write_run(tmp_path / f"{row}{seed}", shift, seed, source="real"))
        for row, shift in (("good", 3.0), ("poor", -1.0))
        for seed in range(3)
    }
    return read_findings(STUDY, runs, {Key("late", "set", 0): "not trained yet"})


def only(findings, seed):
    return replace(findings, results={key: result for key, result in findings.results.items() if key.seed == seed})


def test_decisions_are_those_of_the_records(findings):
    good = decisions(findings, "set").lines[0]
    recorded = [result.metrics["detector"]["f1"]["value"] for result in findings.of("good", "set").values()]
    assert good.values["f1"] == recorded
    assert good.figure("f1").mean == pytest.approx(np.mean(recorded))
    assert good.figure("f1").sd == pytest.approx(np.std(recorded, ddof=1))
    assert good.rules == ["quantile of validation normals"]


def test_a_single_seed_has_its_bootstrap_interval(findings):
    good = decisions(only(findings, 1), "set").lines[0]
    entry = findings.results[Key("good", "set", 1)].metrics["detector"]["recall"]
    assert good.figure("recall")[3:] == (entry["low"], entry["high"])
    assert math.isnan(good.figure("recall").sd)


def test_rows_floors_and_trivial_rules_stand_in_this_order(findings):
    lines = decisions(findings, "set").lines
    assert [line.title for line in lines] == [
        "Good",
        "Poor",
        "Mean-image distance",
        "Call all anomalous",
        "Call all normal",
    ]
    floor = findings.results[Key("good", "set", 0)].metrics["baselines"]["mean_image"]["accuracy"]["value"]
    assert lines[2].values["accuracy"][0] == floor
    assert (lines[3].figure("recall").mean, lines[3].figure("f1").mean) == (1.0, pytest.approx(2 / 3))


def test_floors_are_judged_as_a_row_without_caveats_is(findings):
    key = Key("good", "set", 0)  # the reference
    metrics = findings.results[key].metrics | {"threshold": {"rule": "by test labels", "value": 0.0}}
    cheat = replace(findings.results[key], metrics=metrics, facts={"detector": {"caveats": ["cheats"]}})
    found = decisions(replace(findings, results=findings.results | {key: cheat}), "set")
    assert found.rules == ["by test labels", "quantile of validation normals"]
    assert found.lines[2].rules == ["quantile of validation normals"]


def test_a_number_that_a_trivial_rule_reaches_too_is_told(findings):
    found = decisions(findings, "set")
    good, poor, *_, trivial = found.lines
    assert found.best == {"auroc": 0.5, "accuracy": 0.5, "balanced_accuracy": 0.5, "f1": pytest.approx(2 / 3)}
    assert found.idle("accuracy") == ["Poor"]
    assert not found.trivial(good, "accuracy")
    assert found.trivial(poor, "auroc")
    assert not found.trivial(poor, "specificity")  # which a rule reaches that calls nothing anomalous
    assert not found.trivial(trivial, "accuracy")


def test_the_accuracy_of_calling_all_anomalous_is_told_however_high(tmp_path):
    run = judged(write_run(tmp_path / "r", -0.1))
    metrics = read_json(run / "metrics.json")
    for name in ("accuracy", "f1"):
        metrics["detector"][name]["value"] = 0.909
        metrics["trivial"]["all_anomalous"][name] = 0.909
    write_json(run / "metrics.json", metrics)
    found = decisions(read_findings(STUDY, {Key("good", "set", 0): run}, {}), "set")
    assert found.idle("accuracy") == found.idle("f1") == ["Good †"]


def test_a_run_without_threshold_has_dashes_and_one_without_record_no_row(tmp_path):
    run, bare = judged(write_run(tmp_path / "a", 1.0)), write_run(tmp_path / "b", 1.0)
    metrics = read_json(run / "metrics.json")
    metrics["detector"] |= {name: {"value": None, "low": None, "high": None} for name in ("accuracy", "f1")}
    write_json(run / "metrics.json", metrics | {"threshold": {"rule": "none", "value": None}})
    findings = read_findings(STUDY, {Key("good", "set", 0): run, Key("poor", "set", 0): bare}, {})
    line, *others = decisions(findings, "set").lines
    assert math.isnan(line.figure("f1").mean)
    assert "Poor" not in [other.title for other in others]
    assert decisions(findings, "none") is None
    assert math.isnan(gains(findings, "set")["poor"]["f1"].mean)


def test_gains_pair_the_seeds_and_are_corrected_for_their_number(findings):
    gain = gains(findings, "set")["poor"]["auroc"]
    ours, theirs = ([run.figure() for run in findings.of(row, "set").values()] for row in ("poor", "good"))
    assert gain.values == pytest.approx(np.subtract(ours, theirs))
    pairs = zip(findings.of("poor", "set").values(), findings.of("good", "set").values(), strict=True)
    found = auroc_difference([Sample(a.label, a.score, a.patient, b.score) for a, b in pairs])
    assert (gain.low, gain.high) == (found.low, found.high)
    assert gain.settled
    both = [gains(findings, "set")[row]["auroc"] for row in ("poor", "mean_image")]
    assert min(both, key=lambda each: each.p).p == pytest.approx(2 * found.p)  # Holm's correction of two
    assert not Gain([0.02], 0.02, low=0.001, high=0.04, p=0.06).settled
    assert list(gains(findings, "set")) == ["poor", "mean_image"]  # neither the reference nor a row without runs


def test_a_single_pair_has_an_interval_of_the_cases(findings):
    for metric, gain in gains(only(findings, 2), "set")["poor"].items():
        assert gain.low <= gain.mean <= gain.high, metric
    assert len(gain.values) == 1


def test_the_same_numbers_gain_nothing(tmp_path):
    runs = {Key(row, "set", seed): judged(write_run(tmp_path / f"{row}{seed}", 1.0, seed)) for row in ("good", "poor")
            for seed in (0, 1)}  # fmt: skip
    gain = gains(read_findings(STUDY, runs, {}), "set")["poor"]["accuracy"]
    assert (gain.mean, gain.low, gain.high, gain.settled) == (0, 0, 0, False)


def test_runs_that_judged_different_cases_have_no_interval(findings):
    key = Key("poor", "set", 0)
    other = replace(findings.results[key], id=np.array([f"x{i}" for i in range(60)]))
    found = gains(replace(only(findings, 0), results=only(findings, 0).results | {key: other}), "set")["poor"]["f1"]
    assert math.isfinite(found.mean)
    assert math.isnan(found.low)
