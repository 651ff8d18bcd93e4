"""New scans are compared with what came about as their score did; where there is too little of it, it says so."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.reference import Reference
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import Evaluation

WINDOWS = 40


def scored(scans: int, patients: int | None = None) -> Scores:
    """Windows of validation scans and of ten test scans, half of them anomalous, with `@` in the names of the scans."""
    rng = np.random.default_rng(3)
    names = [*(f"val@{i}" for i in range(scans)), *(f"test@{i}" for i in range(10))]
    patient = [f"p{i % (patients or scans)}" if name.startswith("val") else name for i, name in enumerate(names)]
    of = np.repeat(np.arange(len(names)), WINDOWS)
    return Scores(
        [f"{names[i]}@0,{k % WINDOWS}" for k, i in enumerate(of)],
        [patient[i] for i in of],
        ["val" if i < scans else "test" for i in of],
        ((of >= scans) & (of % 2 == 0)).astype(np.int64),
        rng.lognormal(size=len(of)),
    )


def metrics_of(scores: Scores, rule: str = "none", **words: Any) -> dict[str, Any]:
    return evaluate_scores(scores, replicates=10, **words) | {"unit": {"rule": rule, "top_k": 10}}


@pytest.mark.parametrize("purpose", ["rule_in", "screening", 0.6])
@pytest.mark.parametrize("scans", [25, 12])
def test_windows_are_a_reference_by_the_maxima_of_their_scans_as_an_evaluation_by_case_has_it(
    scans: int, purpose: Any
) -> None:
    scores = scored(scans)
    metrics = metrics_of(scores, purpose=purpose)
    found = Reference.of(scores, metrics, Evaluation(purpose=purpose))
    by_hand = [scores.score[np.array([id.startswith(f"val@{i}@") for id in scores.id])].max() for i in range(scans)]
    assert sorted(found.normals.tolist()) == sorted(by_hand)
    cases, _ = scores.by_case(np.array([id.rpartition("@")[0] for id in scores.id]), "max", 10)
    by_case = metrics_of(cases, "max", purpose=purpose)
    assert found.threshold == by_case["threshold"]
    assert Reference.of(cases, by_case, Evaluation(purpose=purpose)).normals.tolist() == pytest.approx(
        found.normals.tolist()
    )
    assert (str(found), found.lacking) == (f"{scans} validation scans", "")
    assert found.scale == (scores.score[scores.normals].min(), metrics["threshold"]["value"])
    assert (np.array(by_hand) > metrics["threshold"]["value"]).mean() > 0.3  # of all normal scans


def test_too_few_scans_set_no_threshold_and_say_so() -> None:
    scores = scored(1)
    found = Reference.of(scores, metrics_of(scores), Evaluation())
    assert found.threshold["value"] is None
    assert found.lacking.startswith("No label: 1 validation scan is too few for a threshold at the 0.95 quantile")
    assert str(found) == "1 validation scan (no label)"
    negative = replace(scored(12), score=-scored(12).score)  # of which no log-normal bound exists
    found = Reference.of(negative, metrics_of(negative), Evaluation())
    assert "12 validation scans are too few" in found.lacking
    assert len(found.normals) == 12
    loose = Reference.of(negative, metrics_of(negative), Evaluation(purpose="screening"))
    assert (loose.lacking, loose.threshold["num_normals"]) == ("", 12)


@pytest.mark.parametrize("rule", ["none", "max", "top_k"])
def test_a_part_of_the_windows_is_no_reference_for_a_maximum(rule: str) -> None:
    scores = scored(25)
    found = Reference.of(scores, metrics_of(scores, rule), Evaluation(), part="data.limits.val=500")
    assert (len(found.normals), found.threshold["value"], str(found)) == (0, None, "none")
    assert "by data.limits.val=500 only some windows" in found.lacking
    assert found.lacking.endswith("Train with data.limits.val=null.")
    mean = Reference.of(scores, metrics_of(scores, "mean"), Evaluation(), part="data.limits.val=500")
    assert (len(mean.normals), mean.lacking) == (1000, "")


def test_whole_pictures_are_compared_as_they_were_evaluated() -> None:
    scores = scored(25)
    scores = replace(scores, id=[f"{id}.png" for id in scores.id])  # not to be taken for windows
    metrics = metrics_of(scores)
    found = Reference.of(scores, metrics, Evaluation())
    assert found.normals.tolist() == scores.score[scores.normals].tolist()
    assert found.threshold is metrics["threshold"]
    assert str(found) == "1000 validation normals"
