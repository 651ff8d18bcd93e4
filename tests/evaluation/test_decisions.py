"""metrics.json's `decisions`: what a threshold would mean at a stated prevalence."""

import dataclasses
import json

import numpy as np
import pytest
from toy_scores import example

from anomaly_lab.evaluation.decisions import decisions_in_use
from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.experiment.record import Metrics, check


def test_a_day_by_hand() -> None:
    metrics = evaluate_scores(example(), replicates=50)
    used = decisions_in_use(metrics, 0.02, 500)
    assert used is not None
    sensitivity, specificity = (metrics["detector"][name]["value"] for name in ("recall", "specificity"))
    day = {name: figure["value"] for name, figure in used["detector"].items()}
    assert day["found"] == pytest.approx(10 * sensitivity)
    assert day["missed"] == pytest.approx(10 * (1 - sensitivity))
    assert day["false_alarms"] == pytest.approx(490 * (1 - specificity))
    assert day["alarms"] == pytest.approx(day["found"] + day["false_alarms"])
    assert day["ppv"] == pytest.approx(day["found"] / day["alarms"])
    assert day["npv"] == pytest.approx(490 * specificity / (490 * specificity + day["missed"]))
    for figure in used["detector"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert set(used["baselines"]) == {"mean_image", "pca_32"}
    json.dumps(used, allow_nan=False)
    check({"decisions": used}, Metrics)


def test_nothing_without_a_threshold_or_a_class() -> None:
    assert decisions_in_use(evaluate_scores(example(num_val=0), replicates=20), 0.1, 100) is None
    normal = dataclasses.replace(example(), label=np.zeros_like(example().label))
    assert decisions_in_use(evaluate_scores(normal, replicates=20), 0.1, 100) is None


def test_without_an_interval_nothing_is_claimed() -> None:
    rates = {"recall": {"value": 0.9, "low": None, "high": None}, "specificity": {"value": 0.8}}
    used = decisions_in_use({"detector": rates}, 0.1, 100)
    assert used is not None
    assert (used["detector"]["missed"]["low"], used["detector"]["missed"]["high"]) == (0.0, 10.0)
