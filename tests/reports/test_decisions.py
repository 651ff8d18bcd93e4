"""What the report says of a threshold and of its use, whatever a record lacks."""

import json
import re
from pathlib import Path

import pytest
from toy_scores import example

from anomaly_lab.evaluation.decisions import decisions_in_use
from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.experiment.purpose import PURPOSES as KNOWN
from anomaly_lab.reports import decisions
from anomaly_lab.reports.run_report import METRICS, write_report


@pytest.fixture
def judged_run(fake_run: Path) -> Path:
    """A run folder with the metrics of the present rules."""
    metrics = evaluate_scores(example(), "screening", replicates=50)
    metrics["decisions"] = decisions_in_use(metrics, 0.02, 300)
    (fake_run / "metrics.json").write_text(json.dumps(metrics))
    return fake_run


def test_every_purpose_has_words() -> None:
    assert set(decisions.PURPOSES) == set(KNOWN)


def test_nearly_all_normals_are_not_all() -> None:
    few = {"purpose": None, "quantile": 0.9999, "num_normals": 8, "num_patients": 8, "method": "log_normal"}
    said = decisions.of_threshold(few | {"specificity": {"low": 0.9973, "high": 0.999999}})
    assert said.startswith(".9999 of new normals below it")
    assert "between .997 and 1.00" in said


def test_the_page_says_purpose_range_and_a_day(judged_run: Path) -> None:
    text = re.sub(r"\s+", " ", write_report(judged_run).read_text())
    assert "screening (.80 of new normals below it), from 25 validation normals of 13 patients" in text
    assert "its true specificity is between" in text
    assert decisions.PURPOSES["screening"] in text
    assert ">2 %</b> and <b" in text
    for title in (*decisions.IN_USE.values(), "Net benefit", "Look at every scan"):
        assert title in text


def test_balanced_accuracy_comes_first_and_accuracy_stands_beside_the_trivial_rules(judged_run: Path) -> None:
    assert next(iter(METRICS)) == "balanced_accuracy"
    section = write_report(judged_run).read_text().partition('id="threshold"')[2]
    assert section.index("Balanced accuracy") < section.index(">Accuracy") < section.index("two trivial rules")


def test_a_record_of_older_rules_has_no_such_part(fake_run: Path) -> None:
    text = write_report(fake_run).read_text()
    assert "Where it would be used" not in text
    assert ".95 of new normals below it" in text or "conformal quantile" in text


@pytest.mark.parametrize(
    "threshold",
    [
        {},
        {"rule": "x"},
        {"num_normals": 8},
        {"num_normals": 8, "quantile": None, "method": "unheard of", "specificity": {"low": None, "high": None}},
    ],
)
def test_whatever_a_record_lacks_something_is_said(threshold: dict) -> None:
    assert decisions.of_threshold(threshold)


def test_cross_fitted_normals_are_told_from_validation_ones() -> None:
    said = decisions.of_threshold({"num_normals": 75, "num_patients": 60, "num_cross_fitted": 67, "quantile": 0.8})
    assert said == ".80 of new normals below it, from 75 normals of 60 patients, 67 of them cross-fitted"


def test_no_chart_without_a_threshold() -> None:
    metrics = evaluate_scores(example(num_val=0), replicates=20)
    metrics["decisions"] = decisions_in_use(metrics, 0.02, 300)
    assert decisions.net_benefit_panel(metrics) is None
    assert decisions.table(metrics) == []
    assert decisions.in_words(metrics["decisions"] or {}) == ""


@pytest.mark.parametrize(("recall", "specificity"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
@pytest.mark.parametrize("prevalence", [1e-6, 0.05, 0.999])
def test_the_chart_of_any_decision_can_be_drawn(recall: float, specificity: float, prevalence: float) -> None:
    detector = {"recall": {"value": recall}, "specificity": {"value": specificity}}
    panel = decisions.net_benefit_panel({"detector": detector, "decisions": {"prevalence": prevalence}})
    assert panel is not None
    assert "nan" not in panel.svg
    assert "inf" not in panel.svg
