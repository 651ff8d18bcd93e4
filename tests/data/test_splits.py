from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.data.splits import split_by_file, split_by_seed
from anomaly_lab.types import Case, UserError


def _cases(labels, patients=None):
    patients = patients or [f"p{i}" for i in range(len(labels))]
    return [
        Case(f"{i:03d}", patient, Path(f"{i}.png"), label)
        for i, (label, patient) in enumerate(zip(labels, patients, strict=True))
    ]


HEADCT = _cases([1] * 100 + [0] * 100)


def _counts(split):
    return [list(split.values()).count(name) for name in ("train", "val", "test")]


def test_head_ct_is_67_8_125_and_without_held_out_normals_75_0_125():
    assert _counts(split_by_seed(HEADCT, 75, 0.1, 0)) == [67, 8, 125]
    assert _counts(split_by_seed(HEADCT, 75, 0.0, 0)) == [75, 0, 125]
    assert _counts(split_by_seed(HEADCT, 0.75, 0.001, 0)) == [74, 1, 125]


def test_seed_decides_and_nothing_else():
    assert split_by_seed(HEADCT, 75, 0.1, 1) == split_by_seed(HEADCT[::-1], 75, 0.1, 1)
    assert split_by_seed(HEADCT, 75, 0.1, 1) != split_by_seed(HEADCT, 75, 0.1, 2)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=8, max_size=60), st.integers(0, 99))
def test_patients_stay_together_and_only_normals_train(rows, seed):
    cases = _cases([int(label) for _, label in rows], [f"p{patient}" for patient, _ in rows])
    try:
        split = split_by_seed(cases, 0.6, 0.2, seed)
    except UserError:
        return  # too few normal patients
    sides = {}
    for case in cases:
        assert sides.setdefault(case.patient, split[case.id]) == split[case.id]
        assert case.label == 0 or split[case.id] == "test"
    assert set(split) == {case.id for case in cases}


@pytest.mark.parametrize("train_normals", [100, 1, 0.001])
def test_count_that_leaves_nobody_is_refused(train_normals):
    with pytest.raises(UserError, match=r"data\.train_normals"):
        split_by_seed(HEADCT, train_normals, 0.1, 0)


def test_users_file_is_followed(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id, split\n000,test\n001,train\n002,val\n")
    assert split_by_file(_cases([1, 0, 0]), path) == {"000": "test", "001": "train", "002": "val"}


FAULTS = {
    "unknown ids 7": "id,split\n000,test\n001,train\n002,train\n7,train\n",
    "no row for the ids 002": "id,split\n000,test\n001,train\n",
    "anomalies in train or val.* 000": "id,split\n000,train\n001,train\n002,test\n",
    "both sides of the split.* 001, 002": "id,split\n000,test\n001,train\n002,test\n",
    "line 3: id 000 appears twice": "id,split\n000,test\n000,test\n",
    "line 2: split is 'Test'": "id,split\n000,Test\n",
    "columns id,split": "name,split\n000,test\n",
    "columns id": "",
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_file_is_refused(tmp_path, message):
    path = tmp_path / "split.csv"
    path.write_text(FAULTS[message])
    with pytest.raises(UserError, match=message):
        split_by_file(_cases([1, 0, 0], ["a", "b", "b"]), path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        split_by_file(HEADCT, tmp_path / "nowhere.csv")
