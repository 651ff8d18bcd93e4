"""scores.csv and metrics.json: bit-exact, and no test label ever reaches a threshold."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest

from anomaly_lab.evaluation.protocol import COLUMNS, Scores, judge
from anomaly_lab.types import UserError

RATES = {"accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"}
RANKS = {"auroc", "average_precision", "sensitivity_at_95_specificity"}


def example(num_val=25, num_test=60, shift=1.5, floor_shift=0.5, seed=0):
    random = np.random.default_rng(seed)
    n = num_val + num_test
    label = np.r_[np.zeros(num_val, int), np.arange(num_test) % 2]
    floors = {name: random.normal(size=n) + move * label
              for name, move in (("mean_image", 0.0), ("pca_32", floor_shift))}  # fmt: skip
    return Scores(
        id=[f"{i:03d}" for i in range(n)],
        patient=[f"p{i // 2}" for i in range(n)],
        split=["val"] * num_val + ["test"] * num_test,
        label=label,
        score=(random.normal(size=n) + shift * label).astype(np.float32).astype(float),
        floors=floors,
    )


def rows_of(scores):
    return list(csv.DictReader(scores.to_csv().splitlines()))


def test_scores_read_back_bit_for_bit(tmp_path):
    scores = example()
    scores.score[:3] = [1 / 3, 5e-324, -1.7e308]
    (tmp_path / "scores.csv").write_text(scores.to_csv())
    again = Scores.read(tmp_path / "scores.csv")
    for name in ("id", "patient", "split"):
        assert getattr(again, name) == getattr(scores, name)
    assert (again.label == scores.label).all()
    assert again.score.tobytes() == scores.score.tobytes()
    assert {name: values.tobytes() for name, values in again.floors.items()} == {
        name: values.tobytes() for name, values in scores.floors.items()
    }
    assert again.to_csv() == scores.to_csv()
    assert judge(again, replicates=50) == judge(scores, replicates=50)


def test_columns_and_answers_of_the_file():
    rows = rows_of(example())
    assert list(rows[0]) == [*COLUMNS, "mean_image", "pca_32"]
    test = [row for row in rows if row["split"] == "test"]
    assert all((row["pred_label"] == "1") == (float(row["p_value"]) <= 0.05 + 1e-12) for row in test)
    assert {row["pred_label"] for row in test} == {"0", "1"}
    # each val normal against the other 24: every rank once
    p = sorted(float(row["p_value"]) for row in rows if row["split"] == "val")
    assert p == pytest.approx(np.arange(1, 26) / 25)


def test_test_labels_and_scores_never_reach_the_threshold():
    scores = example()
    test = scores.of("test")
    label = scores.label.copy()
    label[test] = np.random.default_rng(1).permutation(label[test])
    flipped = np.where(test, 1 - scores.label, scores.label)
    shifted = dataclasses.replace(scores, score=np.where(test, scores.score * 7 + 3, scores.score))
    expected = judge(scores, replicates=20)["threshold"]
    for other in (dataclasses.replace(scores, label=label), dataclasses.replace(scores, label=flipped)):
        assert judge(other, replicates=20)["threshold"] == expected
        assert (other.p_values() == scores.p_values()).all()
        for column in ("p_value", "pred_label"):
            assert [row[column] for row in rows_of(other)] == [row[column] for row in rows_of(scores)]
    assert judge(shifted, replicates=20)["threshold"] == expected


def test_the_whole_verdict():
    verdict = judge(example(), replicates=300)
    assert set(verdict) == {
        "counts", "threshold", "detector", "floors", "trivial", "versus_floors", "oracle", "bootstrap",
    }  # fmt: skip
    assert verdict["counts"] == {
        "val": {"normal": 25, "anomalous": 0},
        "test": {"normal": 30, "anomalous": 30},
    }
    for table in (verdict["detector"], *verdict["floors"].values()):
        assert set(table) == RANKS | RATES
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in table.values())
    assert verdict["threshold"]["value"] == np.sort(example().score[:25])[24]  # ceil(26 * .95) = 25
    assert verdict["threshold"]["warning"] is None
    assert verdict["trivial"]["all_anomalous"] == pytest.approx(
        {
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "precision": 0.5,
            "recall": 1,
            "specificity": 0,
            "f1": 2 / 3,
        }
    )
    assert verdict["trivial"]["all_normal"]["specificity"] == 1
    assert verdict["oracle"]["best_f1"]["value"] >= verdict["detector"]["f1"]["value"]
    assert verdict["bootstrap"] == {
        "replicates": 300, "unit": "patient", "strata": "label", "level": 0.95, "seed": 0,
    }  # fmt: skip
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_a_beaten_floor_and_an_unbeaten_one():
    won = judge(example(shift=3.0), replicates=300)["versus_floors"]
    assert won["beaten"]
    assert won["best"] == "pca_32"
    assert won["difference"]["low"] > 0
    assert won["sentence"].startswith("The detector beats the PCA-32 floor: AUROC .9")
    assert won["sentence"].endswith("The interval excludes 0.")
    lost = judge(example(shift=-1.0, floor_shift=3.0), replicates=300)["versus_floors"]
    assert not lost["beaten"]
    assert lost["difference"]["high"] < 0
    assert lost["sentence"].startswith("The detector does not beat the PCA-32 floor")
    assert "(difference -." in lost["sentence"]
    assert lost["sentence"].endswith("The interval excludes 0.")


def test_a_draw_is_not_a_win():
    scores = example()
    same = dataclasses.replace(scores, floors={"mean_image": scores.score, "pca_32": scores.score * 2})
    versus = judge(same, replicates=50)["versus_floors"]
    assert versus["difference"] == {"value": 0, "low": 0, "high": 0}
    assert not versus["beaten"]
    assert "includes 0" in versus["sentence"]


def test_a_flipped_sign_is_noticed():
    scores = example()
    right = judge(scores, replicates=20)
    wrong = judge(dataclasses.replace(scores, score=-scores.score), replicates=20)
    assert right["detector"]["auroc"]["value"] > 0.7
    assert wrong["detector"]["auroc"]["value"] == pytest.approx(1 - right["detector"]["auroc"]["value"])


def test_without_held_out_normals_there_is_no_threshold():
    scores = example(num_val=0)
    verdict = judge(scores, replicates=50)
    assert verdict["threshold"]["value"] is None
    assert "no held-out normals" in verdict["threshold"]["warning"]
    assert all(verdict["detector"][name] == {"value": None, "low": None, "high": None} for name in RATES)
    assert verdict["detector"]["auroc"]["value"] > 0.5
    assert {(row["p_value"], row["pred_label"]) for row in rows_of(scores)} == {("", "")}


def test_too_few_normals_are_said():
    assert "10 held-out normals are too few" in judge(example(num_val=10), replicates=20)["threshold"]["warning"]


def test_one_class_and_no_floors():
    scores = example()
    normal = dataclasses.replace(scores, label=np.zeros_like(scores.label))
    verdict = judge(normal, replicates=20)
    assert verdict["detector"]["auroc"] == {"value": None, "low": None, "high": None}
    assert verdict["detector"]["specificity"]["value"] is not None
    assert "one class only" in verdict["versus_floors"]["sentence"]
    assert judge(dataclasses.replace(scores, floors={}), replicates=20)["versus_floors"] is None


def test_no_test_cases():
    with pytest.raises(UserError, match="no case of the test split"):
        judge(example(num_test=0))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id,", "name,", "no rows with id"),
        ("split", "part", "no rows with split"),
        ("000,p0,val,0", "000,p0,train,0", "line 2: split must be val or test"),
        ("000,p0,val,0", "000,p0,val,2", "line 2: .*label 0 or 1"),
        ("000,p0,val,0,", "000,p0,val,0,high", "line 2: a score is not a number"),
        ("001,", "000,", "id '000' comes 2 times"),
    ],
)
def test_bad_files_get_one_line(tmp_path, old, new, message):
    path = tmp_path / "scores.csv"
    path.write_text(example().to_csv().replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        Scores.read(path)
    assert "\n" not in str(error.value)


def test_missing_empty_and_unreadable_files(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes.csv").write_bytes(b"id,patient\n\xff\xfe\x00")
    for name in ("empty.csv", "bytes.csv", "missing.csv"):
        with pytest.raises(UserError, match=name):
            Scores.read(tmp_path / name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(value):
    scores = example()
    score = scores.score.copy()
    score[7] = value
    with pytest.raises(UserError, match="score of '007'"):
        dataclasses.replace(scores, score=score)
