"""Class metrics: a hand table, parity with scikit-learn and with a literal re-computation, weights as repetitions."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multilabel_average_precision

from anomaly_lab.metrics import ranking, statistics
from anomaly_lab.metrics.classification import (
    MEANS,
    PER_CLASS,
    Judged,
    Measures,
    confusion,
    most_probable,
    unweighted,
)

N, K = 60, 4
RANDOM = np.random.default_rng(3)
TARGET = (RANDOM.random((N, K)) < 0.3).astype(np.int8)
TIED = RANDOM.integers(0, 7, (N, K)) / 8 + TARGET / 8
UNTIED = RANDOM.permutation(N * K).reshape(N, K) / (N * K)
UNKNOWN = np.where(RANDOM.random((N, K)) < 0.2, -1, TARGET).astype(np.int8)
TRUTH = RANDOM.integers(0, K, N)
ONE_OF = np.eye(K, dtype=np.int8)[TRUTH]
SOFTMAX = RANDOM.dirichlet(np.ones(K), N) * 0.7 + 0.3 * ONE_OF


def literal_average_precision(target, probability, interpolated=False):
    """The mean over the positives of the precision at each, walking down the list; probabilities may not tie."""
    hits, seen, precisions = 0, 0, []
    for case in sorted(range(len(target)), key=lambda case: -probability[case]):
        if target[case] == -1:
            continue
        seen += 1
        if target[case] == 1:
            hits += 1
            precisions.append(hits / seen)
    if interpolated:
        precisions = [max(precisions[i:]) for i in range(len(precisions))]
    return sum(precisions) / len(precisions)


def of_classes(target, probability, called=None, **kwargs):
    called = probability > 0.5 if called is None else called
    figures = Judged(target, probability, called, exclusive=False).measure(**kwargs)
    return {name: values[..., 0] for name, values in figures.items()}


def test_the_hand_table():
    """Ranked 1 ? 0 1 0 1: precisions 1, 2/3, 3/5; higher ones further down: none; 1 + 1/2 + 0 pairs of 2 each."""
    target = np.array([[1], [-1], [0], [1], [0], [1]], np.int8)
    probability = np.array([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]])
    figures = of_classes(target, probability, probability > 0.55)
    assert figures["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert figures["interpolated_average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert figures["auroc"] == pytest.approx((2 + 1 + 0) / 6)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["brier"] == pytest.approx((0.01 + 0.49 + 0.16 + 0.25 + 0.36) / 5)


def test_interpolation_takes_the_highest_precision_further_down():
    """Ranked 0 1 1: precisions 1/2 and 2/3, of which the second holds for both."""
    figures = of_classes(np.array([[0], [1], [1]], np.int8), np.array([[0.9], [0.8], [0.7]]))
    assert figures["average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["interpolated_average_precision"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("probability", [TIED, UNTIED, 1 - TIED])
def test_ranks_equal_scikit_learn(probability):
    figures = of_classes(UNKNOWN, probability)
    for k in range(K):
        known = UNKNOWN[:, k] >= 0
        label, score = UNKNOWN[known, k], probability[known, k]
        assert figures["average_precision"][k] == pytest.approx(metrics.average_precision_score(label, score))
        assert figures["auroc"][k] == pytest.approx(metrics.roc_auc_score(label, score))
        precision, recall, _ = metrics.precision_recall_curve(label, score)
        envelope = np.maximum.accumulate(precision)
        assert figures["interpolated_average_precision"][k] == pytest.approx(-np.sum(np.diff(recall) * envelope[:-1]))
    assert figures["mean_average_precision"] == pytest.approx(figures["average_precision"].mean())


@pytest.mark.parametrize("interpolated", [False, True])
def test_average_precision_equals_the_literal_walk_down_the_list(interpolated):
    name = "interpolated_average_precision" if interpolated else "average_precision"
    literal = [literal_average_precision(UNKNOWN[:, k], UNTIED[:, k], interpolated) for k in range(K)]
    assert of_classes(UNKNOWN, UNTIED)[name] == pytest.approx(literal)


def test_average_precision_equals_torchmetrics():
    theirs = multilabel_average_precision(torch.tensor(TIED), torch.tensor(TARGET).long(), K, average=None)
    assert of_classes(TARGET, TIED)["average_precision"] == pytest.approx(theirs.tolist(), abs=1e-6)


def test_equal_probabilities_count_alike_whatever_the_order_of_the_cases():
    order = RANDOM.permutation(N)
    once, again = of_classes(UNKNOWN, TIED), of_classes(UNKNOWN[order], TIED[order])
    assert {name: again[name] == pytest.approx(once[name]) for name in once} == dict.fromkeys(once, True)


def test_decisions_equal_scikit_learn():
    figures = Judged(ONE_OF, SOFTMAX, most_probable(SOFTMAX), exclusive=True).measure()
    predicted = SOFTMAX.argmax(1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(TRUTH, predicted, zero_division=0)
    for name, theirs in {"precision": precision, "recall": recall, "f1": f1}.items():
        assert figures[name][:, 0] == pytest.approx(theirs)
        assert figures[f"macro_{name}"] == pytest.approx(theirs.mean())
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(TRUTH, predicted))
    assert confusion(ONE_OF, most_probable(SOFTMAX)).tolist() == metrics.confusion_matrix(TRUTH, predicted).tolist()


def test_brier_scores_equal_scikit_learn():
    of_one = Judged(ONE_OF, SOFTMAX, most_probable(SOFTMAX), exclusive=True).measure()["brier"]
    assert of_one == pytest.approx(metrics.brier_score_loss(TRUTH, SOFTMAX, scale_by_half=False))
    known = UNKNOWN >= 0
    assert of_classes(UNKNOWN, UNTIED)["brier"] == pytest.approx(
        metrics.brier_score_loss(UNKNOWN[known], UNTIED[known])
    )


def test_unweighted_means_equal_scikit_learn():
    label, called = TARGET[:, 0].astype(bool), UNTIED[:, 0] > 0.6
    counts = (float((a & b).sum()) for a, b in ((called, label), (called, ~label), (~called, ~label), (~called, label)))
    ours = unweighted(*(np.array([count]) for count in counts))
    theirs = metrics.precision_recall_fscore_support(label, called, average="macro")[:3]
    assert [ours[name].item() for name in ("precision", "recall", "f1")] == pytest.approx(theirs)


def test_a_published_row_is_what_calling_nearly_everything_harmless_gives():
    """Recall .5 and precision near .5 for a rare class: what an unweighted mean makes of a useless detector."""
    ours = unweighted(np.array([0.0]), np.array([0.0]), np.array([990.0]), np.array([10.0]))
    assert ours["recall"].item() == 0.5
    assert ours["f1"].item() == pytest.approx(0.4975, abs=1e-4)


def test_a_weight_is_the_case_that_many_times():
    weight = RANDOM.integers(0, 4, (N, 3))
    weighted = Measures(Judged(UNKNOWN, TIED, TIED > 0.5, exclusive=False))(weight)
    for column in range(3):
        repeats = np.repeat(np.arange(N), weight[:, column])
        plain = Judged(UNKNOWN[repeats], TIED[repeats], TIED[repeats] > 0.5, exclusive=False).measure()
        for name in (*PER_CLASS, *MEANS, "brier"):
            assert weighted[name][..., column] == pytest.approx(plain[name][..., 0]), name


def test_a_binary_class_is_what_the_other_modules_measure():
    label = TARGET[:, 0].astype(np.int64)
    weight = RANDOM.integers(0, 4, (N, 9)).astype(np.int32)
    theirs = statistics.WeightedMetrics(label, TIED[:, 0], 0.5)(weight)
    ours = Measures(Judged(TARGET[:, :1], TIED[:, :1], TIED[:, :1] > 0.5, exclusive=False))(weight)
    for name in ("average_precision", "auroc", "precision", "recall", "f1"):
        assert ours[name][0] == pytest.approx(theirs[name])
    assert of_classes(TARGET, TIED)["auroc"][0] == pytest.approx(ranking.auroc(label, TIED[:, 0]))


@pytest.mark.parametrize("without", [0, 1, -1])
def test_a_class_without_a_positive_or_a_negative_is_no_part_of_the_mean(without):
    target = np.column_stack([TARGET[:, 0], np.full(N, {0: 0, 1: 1, -1: -1}[without])]).astype(np.int8)
    judged = Judged(target, UNTIED[:, :2], UNTIED[:, :2] > 0.5, exclusive=False)
    figures = judged.measure()
    assert np.isnan(figures["average_precision"][1, 0])
    assert np.isnan(figures["auroc"][1, 0])
    assert figures["mean_average_precision"][0] == figures["average_precision"][0, 0] > 0
    assert Measures(judged).ranked.tolist() == [True, False]
    assert math.isnan(figures["f1"][1, 0]) is (without != 1)


def test_all_cases_of_one_class_leave_the_ranks_undefined_and_the_accuracy_defined():
    target = np.eye(3, dtype=np.int8)[[1] * 5]
    probability = np.array([[0.2, 0.5, 0.3]] * 4 + [[0.6, 0.3, 0.1]])
    figures = Judged(target, probability, most_probable(probability), exclusive=True).measure()
    assert np.isnan(figures["mean_average_precision"]).all()
    assert np.isnan(figures["average_precision"]).all()
    assert figures["accuracy"] == pytest.approx(0.8)
    assert figures["macro_f1"] == pytest.approx(2 * 4 / (4 + 5))  # of the only class there


def test_nothing_known_is_no_figure():
    figures = of_classes(np.full((4, 2), -1, np.int8), np.full((4, 2), 0.5))
    assert {name for name, value in figures.items() if np.isfinite(value).any()} == {"precision"}  # a share of nothing


def test_a_replicate_that_loses_a_class_says_so():
    target, probability = np.array([[1, 1], [0, 0], [0, 1]], np.int8), np.array([[0.9, 0.1], [0.5, 0.6], [0.2, 0.7]])
    weight = np.array([[1, 0], [1, 2], [1, 1]])
    figures = Measures(Judged(target, probability, probability > 0.5, exclusive=False))(weight)
    assert np.isfinite(figures["mean_average_precision"][0])
    assert np.isnan(figures["mean_average_precision"][1])
    assert np.isnan(figures["macro_f1"][1])
