"""Health against AUROC: which runs count, what the interval is, what is said of it."""

import math

import numpy as np
import pytest
from scipy import stats
from study_runs import write_run

from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.health import Relation, relations, spearman
from anomaly_lab.studies.plan import DataSet, Key, Row, Study

STUDY = Study(
    name="s",
    title="S",
    datasets={"set": DataSet("Set"), "other": DataSet("Other")},
    rows={"a": Row("A", "x"), "b": Row("B", "x", hidden=True)},
)


def healthy(tmp_path, health, row="a", dataset="set"):
    return {Key(row, dataset, i): write_run(tmp_path / f"{row}{dataset}{i}", i / 2, i, health=h)
            for i, h in enumerate(health)}  # fmt: skip


def test_a_measure_counts_with_four_runs_of_one_data_set(tmp_path):
    runs = healthy(
        tmp_path, [{"ssim": 0.1 * i, "collapsed": True} | ({"diversity": 1.0} if i else {}) for i in range(4)]
    )
    runs |= healthy(tmp_path, [{"diversity": 1.0}], dataset="other") | healthy(tmp_path, [{"diversity": 1.0}], row="b")
    findings = read_findings(STUDY, runs, {})
    (found,) = relations(findings, "set")
    assert found.title == "SSIM of validation normals"
    assert found.value == pytest.approx([0, 0.1, 0.2, 0.3])
    assert found.auroc == [findings.results[key].figure() for key in found.keys]
    assert relations(findings, "other") == []


def test_distances_of_different_features_are_never_compared(tmp_path):
    health = [{"fid": float(i), "features": "one" if i < 4 else "two"} for i in range(7)]
    (found,) = relations(read_findings(STUDY, healthy(tmp_path, health), {}), "set")
    assert (found.title, len(found.value)) == ("FID, one", 4)


def test_one_training_judged_twice_counts_once(tmp_path):
    runs = healthy(tmp_path, [{"ssim": float(i)} for i in range(4)])
    again = {key._replace(seed=key.seed + 10): run for key, run in runs.items()}
    (found,) = relations(read_findings(STUDY, runs | again, {}), "set")
    assert found.keys == list(runs)


def test_numbers_that_are_none_are_left_out(tmp_path):
    health = [{"kid": value, "features": "f"} for value in (0.1, 0.2, 0.3, None)]
    assert relations(read_findings(STUDY, healthy(tmp_path, health), {}), "set") == []


def test_the_interval_is_bonett_and_wrights():
    x, y = [1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 6, 5, 8, 7]
    rho, low, high = spearman(x, y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic) == pytest.approx(1 - 6 * 8 / (8 * 63))
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 5)
    assert (low, high) == (
        pytest.approx(math.tanh(math.atanh(rho) - half)),
        pytest.approx(math.tanh(math.atanh(rho) + half)),
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_of_few_runs_is_no_certainty(sign):
    rho, low, high = spearman([1, 2, 3, 4], [sign * i for i in (1, 2, 3, 4)])
    assert rho == pytest.approx(sign)
    assert low < 0 < high
    assert -1 <= low < high <= 1


def test_the_interval_covers_what_it_should():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        _, low, high = spearman(*random.normal(size=(2, 12)))
        held += low <= 0 <= high
    assert 0.9 < held / 300 < 0.99


@pytest.mark.parametrize("pair", [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_no_rho_without_four_runs_that_differ(pair):
    assert all(math.isnan(value) for value in spearman(*pair))


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((0.8, 0.4, 0.9), "The higher it is, the higher the AUROC: ρ .80 [.40, .90], 4 runs."),
        ((-0.8, -0.9, -0.4), "The higher it is, the lower the AUROC: ρ −.80 [−.90, −.40], 4 runs."),
        ((0.3, -0.4, 0.9), "No correlation with the AUROC is shown: ρ .30 [−.40, .90], 4 runs."),
        ((math.nan,) * 3, "It is the same for all 4 runs, so there is no correlation."),
    ],
)
def test_what_is_said(figures, words):
    assert Relation("FID", [], [1.0] * 4, [1.0] * 4, *figures).sentence == words
