"""The bootstrap: parity with scikit-learn under weights and with scipy; strata, patients and blocks."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from anomaly_lab.metrics import ranking, statistics, thresholds

RANDOM = np.random.default_rng(1)
N = 80
LABEL = np.r_[np.zeros(50, int), np.ones(30, int)]
TIED = RANDOM.integers(0, 9, N) + 2.0 * LABEL
UNTIED = RANDOM.normal(size=N) + LABEL
WEIGHT = RANDOM.integers(0, 4, (N, 25)).astype(np.int32)
SINGLES = [f"patient {i}" for i in range(N)]


@pytest.mark.parametrize(("score", "threshold"), [(TIED, 3.0), (UNTIED, 0.8)])
def test_weighted_metrics_equal_scikit_learn_with_sample_weight(score, threshold):
    ours = statistics.WeightedMetrics(LABEL, score, threshold)(WEIGHT)
    predicted = score > threshold
    for column, w in enumerate(WEIGHT.T):
        fpr, tpr, _ = metrics.roc_curve(LABEL, score, sample_weight=w, drop_intermediate=False)
        theirs = {
            "auroc": metrics.roc_auc_score(LABEL, score, sample_weight=w),
            "average_precision": metrics.average_precision_score(LABEL, score, sample_weight=w),
            "sensitivity_at_95_specificity": tpr[fpr <= 0.05 + 1e-9].max(),
            "accuracy": metrics.accuracy_score(LABEL, predicted, sample_weight=w),
            "balanced_accuracy": metrics.balanced_accuracy_score(LABEL, predicted, sample_weight=w),
            "precision": metrics.precision_score(LABEL, predicted, sample_weight=w),
            "recall": metrics.recall_score(LABEL, predicted, sample_weight=w),
            "specificity": metrics.recall_score(1 - LABEL, ~predicted, sample_weight=w),
            "f1": metrics.f1_score(LABEL, predicted, sample_weight=w),
        }
        assert {name: values[column] for name, values in ours.items()} == pytest.approx(theirs)


@pytest.mark.parametrize("score", [TIED, UNTIED, -TIED])
def test_weights_of_one_give_the_plain_metrics(score):
    ours = statistics.WeightedMetrics(LABEL, score, 3.0)(np.ones((N, 1), np.int32))
    plain = thresholds.confusion_metrics(LABEL, score > 3.0) | {
        "auroc": ranking.auroc(LABEL, score),
        "average_precision": ranking.average_precision(LABEL, score),
        "sensitivity_at_95_specificity": ranking.sensitivity_at_specificity(LABEL, score),
    }
    assert {name: values.item() for name, values in ours.items()} == pytest.approx(plain)


def test_a_weight_is_the_case_that_many_times():
    repeats = WEIGHT[:, 0]
    ours = statistics.WeightedMetrics(LABEL, TIED, 3.0)(WEIGHT[:, :1])
    expected = ranking.auroc(LABEL.repeat(repeats), TIED.repeat(repeats))
    assert ours["auroc"].item() == pytest.approx(expected)


@pytest.mark.parametrize("label", [np.zeros(N, int), np.ones(N, int)])
def test_one_class_leaves_the_ranks_nan_and_the_rates_alone(label):
    ours = statistics.WeightedMetrics(label, UNTIED, 0.0)(WEIGHT)
    for name in ("auroc", "average_precision", "sensitivity_at_95_specificity"):
        assert np.isnan(ours[name]).all()
    assert np.isfinite(ours["accuracy"]).all()


def test_replicates_agree_with_scipy():
    drawn = statistics.bootstrap(LABEL, SINGLES, {"detector": (UNTIED, 1.0)}, 4000)["detector"]["auroc"]

    def auroc_of(normal, anomalous):
        return stats.mannwhitneyu(anomalous, normal).statistic / (len(normal) * len(anomalous))

    samples = UNTIED[LABEL == 0], UNTIED[LABEL == 1]
    theirs = stats.bootstrap(
        samples,
        auroc_of,
        n_resamples=1000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(0),
    )
    assert tuple(np.quantile(drawn, [0.025, 0.975])) == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)
    assert drawn.std() == pytest.approx(theirs.standard_error, rel=0.1)


def test_patients_are_drawn_whole_and_within_their_stratum():
    label = np.array([0, 0, 0, 1, 1, 0, 1, 0, 1, 0])
    patient = ["a", "a", "b", "c", "c", "both", "both", "both 2", "both 2", "d"]
    weight = np.hstack(list(statistics.draw_weights(label, patient, 300, seed=0)))
    assert weight.shape == (10, 300)
    for whole in ([0, 1], [3, 4], [5, 6], [7, 8]):
        assert (weight[whole[0]] == weight[whole[1]]).all()
    assert (weight[0] + weight[2] + weight[9] == 3).all()  # three normal patients are drawn three times
    assert (weight[3] == 1).all()  # the only anomalous patient
    assert (weight[5] + weight[7] == 2).all()
    assert weight[0].std() > 0.5


def test_a_patients_cases_widen_the_interval():
    label, score = LABEL.repeat(4), UNTIED.repeat(4)  # four copies of each case tell nothing new
    widths = []
    for patient in ([f"{i}" for i in range(4 * N)], [f"{i // 4}" for i in range(4 * N)]):
        drawn = statistics.bootstrap(label, patient, {"detector": (score, 1.0)}, 1000)["detector"]["auroc"]
        low, high = np.quantile(drawn, [0.025, 0.975])
        widths.append(high - low)
    assert widths[1] > 1.6 * widths[0]


def test_ratings_share_their_replicates():
    ratings = {"detector": (UNTIED, 1.0), "same order": (UNTIED * 3 - 1, 2.0), "other": (TIED, np.nan)}
    drawn = statistics.bootstrap(LABEL, SINGLES, ratings, 200, seed=3)
    assert (drawn["detector"]["auroc"] == drawn["same order"]["auroc"]).all()
    assert drawn["detector"]["auroc"].shape == (200,)
    assert np.isnan(drawn["other"]["f1"]).all()
    assert np.isfinite(drawn["other"]["auroc"]).all()
    again = statistics.bootstrap(LABEL, SINGLES, ratings, 200, seed=3)
    assert (again["other"]["auroc"] == drawn["other"]["auroc"]).all()
    assert (statistics.bootstrap(LABEL, SINGLES, ratings, 200, seed=4)["other"]["auroc"]
            != drawn["other"]["auroc"]).any()  # fmt: skip


def test_blocks_cover_every_replicate(monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 7 * N)
    drawn = statistics.bootstrap(LABEL, SINGLES, {"detector": (UNTIED, 1.0)}, 50)["detector"]
    assert {len(values) for values in drawn.values()} == {50}
    monkeypatch.setattr(statistics, "BLOCK", 1)
    assert len(statistics.bootstrap(LABEL, SINGLES, {"detector": (UNTIED, 1.0)}, 3)["detector"]["auroc"]) == 3


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=40)
    without = (x.sum() - x) / 39
    assert statistics.jackknife_error(without) == pytest.approx(x.std(ddof=1) / 40**0.5)
    assert math.isnan(statistics.jackknife_error(without[:1]))


@pytest.mark.parametrize("levels", [None, 200])
def test_more_scores_than_are_told_apart_are_classes_of_rank(monkeypatch, levels):
    """Ties stay ties, the order stays, and what it costs is below a thousandth even with few classes."""
    random = np.random.default_rng(0)
    label = np.arange(20_000) % 2
    score = np.exp(4 * (random.normal(size=20_000) + label))
    score = (
        score if levels is None else np.quantile(score, np.linspace(0, 1, levels))[random.integers(levels, size=20_000)]
    )
    weight = random.integers(0, 3, (20_000, 2)).astype(np.int32)
    exact = statistics.WeightedMetrics(label, score, 1.0)(weight)
    monkeypatch.setattr(statistics, "FINEST", 1000)
    coarse = statistics.WeightedMetrics(label, score, 1.0)(weight)
    for name in exact:
        tolerance = 2e-3 if name.startswith("sensitivity") else 2e-5 if name == "auroc" else 5e-4
        assert coarse[name] == pytest.approx(exact[name], abs=tolerance if levels is None else 0), name
    assert coarse["specificity"] == pytest.approx(exact["specificity"], abs=0)  # at the threshold nothing is lost


@pytest.mark.slow
def test_a_million_cases_are_a_matter_of_replicates_not_of_sorting():
    """The cases are sorted once, however many replicates there are, and memory is a few arrays of them."""
    n, sorts = 10**6, 0
    random, unique = np.random.default_rng(0), np.unique

    def counting(values, *args, **options):
        nonlocal sorts
        sorts += len(values) >= n // 2
        return unique(values, *args, **options)

    label = np.arange(n) % 2
    ratings = {name: (random.normal(size=n) + shift * label, 1.0) for name, shift in (("a", 1.0), ("b", 0.5))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "unique", counting)
        counts = []
        for replicates in (2, 6):
            sorts = 0
            drawn = statistics.bootstrap(label, np.arange(n), ratings, replicates)
            counts.append(sorts)
    assert counts[0] == counts[1]
    for name, (score, _) in ratings.items():
        assert drawn[name]["auroc"] == pytest.approx(ranking.auroc(label, score), abs=0.005)
        assert drawn[name]["average_precision"] == pytest.approx(ranking.average_precision(label, score), abs=0.005)
