"""scores.csv: bit-exact, and refused when it cannot be used."""

import csv
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_scores import example, rows_of

from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.scores import COLUMNS, Scores
from anomaly_lab.types import UserError


def test_scores_read_back_bit_for_bit(tmp_path):
    scores = example()
    scores.score[:3] = [1 / 3, 5e-324, -1.7e308]
    (tmp_path / "scores.csv").write_text(scores.to_csv())
    again = Scores.read(tmp_path / "scores.csv")
    for name in ("id", "patient", "split"):
        assert getattr(again, name) == getattr(scores, name)
    assert (again.label == scores.label).all()
    assert again.score.tobytes() == scores.score.tobytes()
    assert {name: values.tobytes() for name, values in again.baselines.items()} == {
        name: values.tobytes() for name, values in scores.baselines.items()
    }
    assert again.to_csv() == scores.to_csv()
    assert evaluate_scores(again, replicates=50) == evaluate_scores(scores, replicates=50)


@given(
    st.lists(st.text(st.one_of(st.sampled_from("=+-@\t\r\n',1"), st.characters(codec="utf-8"))), min_size=4, max_size=4)
)
def test_ids_and_patients_read_back_whatever_they_look_like(tmp_path_factory, texts):
    ids = [f"{text}{i}" for i, text in enumerate(texts)]
    scores = Scores(
        ids, texts, ["val", "test", "test", "val"], np.array([0, 1, 0, 0]), np.array([-1.5, 0.5, -0.0, 2.0])
    )
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    path.write_bytes(scores.to_csv().encode())
    again = Scores.read(path)
    assert (again.id, again.patient, again.score.tobytes()) == (ids, texts, scores.score.tobytes())


def test_columns_and_answers_of_the_file():
    rows = rows_of(example())
    assert list(rows[0]) == [*COLUMNS, "mean_image", "pca_32"]
    test = [row for row in rows if row["split"] == "test"]
    assert all((row["pred_label"] == "1") == (float(row["p_value"]) <= 0.05 + 1e-12) for row in test)
    assert {row["pred_label"] for row in test} == {"0", "1"}
    # each val normal against the other 24: every rank once
    p = sorted(float(row["p_value"]) for row in rows if row["split"] == "val")
    assert p == pytest.approx(np.arange(1, 26) / 25)


def test_terms_of_the_score_have_columns_of_their_own(tmp_path):
    scores = example()
    scores = dataclasses.replace(scores, components={"image": scores.score / 3, "styles": -scores.score})
    (tmp_path / "scores.csv").write_text(scores.to_csv())
    assert list(rows_of(scores)[0]) == [*COLUMNS, "mean_image", "pca_32", "score.image", "score.styles"]
    again = Scores.read(tmp_path / "scores.csv")
    assert list(again.baselines) == ["mean_image", "pca_32"]
    assert {name: values.tobytes() for name, values in again.components.items()} == {
        name: values.tobytes() for name, values in scores.components.items()
    }
    with pytest.raises(UserError, match="the image of "):
        dataclasses.replace(scores, components={"image": scores.score * math.nan})


def test_terms_of_patches_become_terms_of_cases():
    scores = example()
    scores = dataclasses.replace(scores, components={"image": -scores.score})
    case = np.array([f"{split}{i // 2}" for i, split in enumerate(scores.split)])
    cases, _ = scores.by_case(case, "max", 1)
    row = cases.id.index(case[40])
    assert cases.components["image"][row] == max(-scores.score[case == case[40]])


def test_a_threshold_decides_and_leaves_the_scores_alone():
    scores = example()
    honest, other, none = (list(csv.DictReader(scores.to_csv(cut).splitlines())) for cut in (1.0, -0.5, None))
    for column in ("score", "p_value", "pca_32"):
        assert [row[column] for row in honest] == [row[column] for row in other] == [row[column] for row in none]
    assert all((row["pred_label"] == "1") == (float(row["score"]) > -0.5) for row in other)
    assert {row["pred_label"] for row in none} == {""}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id,", "name,", "no rows with id"),
        ("split", "part", "no rows with split"),
        ("000,p0,val,0", "000,p0,train,0", "line 2: split must be val, test or crossfit"),
        ("000,p0,val,0", "000,p0,val,2", "line 2: .*label 0 or 1"),
        ("000,p0,val,0,", "000,p0,val,0,high", "line 2: a score is not a number"),
        ("001,", "000,", "id '000' occurs 2 times"),
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


def test_patches_become_cases_by_the_rule():
    patches = Scores(
        id=["a@0", "b@0", "a@1", "b@1", "c@0"],
        patient=["p", "q", "p", "q", "r"],
        split=["test", "test", "test", "test", "val"],
        label=np.array([0, 0, 1, 0, 0]),
        score=np.array([1.0, 5.0, 3.0, 4.0, 0.5]),
        baselines={"pca_32": np.array([2.0, 0.0, 0.0, 1.0, 7.0])},
    )
    case = np.array(["a", "b", "a", "b", "c"])
    cases, highest = patches.by_case(case, "mean", 1)
    assert (cases.id, cases.patient, cases.split) == (["a", "b", "c"], ["p", "q", "r"], ["test", "test", "val"])
    assert cases.label.tolist() == [1, 0, 0]
    assert cases.score.tolist() == [2.0, 4.5, 0.5]
    assert cases.baselines["pca_32"].tolist() == [1.0, 0.5, 7.0]
    assert highest.tolist() == [2, 1, 4]
    assert patches.by_case(case, "max", 1)[0].score.tolist() == [3.0, 5.0, 0.5]
