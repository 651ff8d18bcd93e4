"""Planted lesions against test labels: which methods count, and that the interval is one for new methods."""

from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.foreseen import Foreseen, foreseen, pooled
from anomaly_lab.studies.plan import DataSet, Key, Row, Study
from anomaly_lab.studies.results import Result


def result(misses: int, planted: float | None, baseline: float | None = None) -> Result:
    """Of 10 + 10 cases, `misses` anomalies score below all normals."""
    ids, label = np.arange(20).astype(str), np.repeat([0, 1], 10)
    score = label * np.where(np.arange(20) < 20 - misses, 1.0, -1.0)
    found = {"detector": {"auroc": planted}} | ({"pca_32": {"auroc": baseline}} if baseline is not None else {})
    metrics = {"planted": found} if planted is not None else {}
    baselines = {"pca_32": label.astype(float)} if baseline is not None else {}
    return Result(Path("run"), ids, ids, label, score, baselines, {}, metrics)


def findings(runs: dict[Key, Result], names: str = "abcde") -> Findings:
    rows = {name: Row(name.upper(), name) for name in names}
    return Findings(Study("s", "S", datasets={"set": DataSet("Set"), "other": DataSet("Other")}, rows=rows), runs)


def test_repeats_are_averaged_and_baselines_are_methods_too() -> None:
    runs = {Key("a", "set", seed): result(seed, 0.5 + seed / 10, 0.9) for seed in (0, 1)}
    found = foreseen(findings(runs, "a"), "set")
    assert found is not None
    assert found.names == ["a", "pca_32"]
    assert found.planted == pytest.approx([0.55, 0.9])
    assert found.auroc == pytest.approx([0.95, 1.0])
    assert np.isnan(found.rho)


def test_runs_that_did_not_measure_are_left_out() -> None:
    runs = {Key("a", "set", 0): result(0, None), Key("b", "set", 0): result(1, 0.6)}
    found = foreseen(findings(runs, "ab"), "set")
    assert found is not None
    assert found.names == ["b"]
    assert foreseen(findings({Key("a", "set", 0): result(0, None)}, "a"), "set") is None
    assert foreseen(findings({}, "a"), "set") is None


def test_the_order_is_what_counts() -> None:
    runs = {Key(name, "set", 0): result(2 * k, 0.9 - 0.01 * k) for k, name in enumerate("abcde")}
    found = foreseen(findings(runs), "set")
    assert found is not None
    assert found.rho == pytest.approx(1)
    assert [round(value, 2) for value in found.auroc] == [1.0, 0.8, 0.6, 0.4, 0.2]


def test_without_any_relation_the_interval_holds_zero_in_95_of_100() -> None:
    held, random = 0, np.random.default_rng(0)
    for _ in range(60):
        one, other = (Foreseen(list("abcdefghij"), random.random(10).tolist(), random.random(10).tolist(), 0.0)
                      for _ in range(2))  # fmt: skip
        found = pooled({"one": one, "other": other})
        assert found is not None
        held += found.low <= 0 <= found.high
    assert held >= 52


def test_a_close_relation_is_shown_over_the_methods_that_all_sets_have() -> None:
    names = list("abcdefghijkl")
    x = np.linspace(0.5, 0.9, 12)
    one = Foreseen(names, x.tolist(), (x**2).tolist(), 1.0)
    other = Foreseen(names[1:], x[1:].tolist(), x[1:].tolist(), 1.0)
    found = pooled({"one": one, "other": other})
    assert found is not None
    assert (found.methods, found.datasets, round(found.rho, 9)) == (11, 2, 1.0)
    assert found.low > 0.9
    assert pooled({"one": one, "other": other._replace(names=names[:11], planted=[1] * 11)}) is not None
    assert pooled({"one": Foreseen(list("abc"), [1, 2, 3], [1, 2, 3], 1.0)}) is None
    assert pooled({}) is None
