from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.data.splitting.classes import Classes
from anomaly_lab.data.splitting.splits import MARGIN, Split, SplitRule, split_by_file, split_by_seed, split_supervised
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
    assert _counts(split_by_seed(HEADCT, SplitRule(75, 0.1, seed=0))) == [67, 8, 125]
    assert _counts(split_by_seed(HEADCT, SplitRule(75, 0.0, seed=0))) == [75, 0, 125]
    assert _counts(split_by_seed(HEADCT, SplitRule(0.75, 0.001, seed=0))) == [74, 1, 125]


def test_seed_decides_and_nothing_else():
    assert split_by_seed(HEADCT, SplitRule(75, 0.1, seed=1)) == split_by_seed(HEADCT[::-1], SplitRule(75, 0.1, seed=1))
    assert split_by_seed(HEADCT, SplitRule(75, 0.1, seed=1)) != split_by_seed(HEADCT, SplitRule(75, 0.1, seed=2))


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=8, max_size=60), st.integers(0, 99))
def test_patients_stay_together_and_only_normals_train(rows, seed):
    cases = _cases([int(label) for _, label in rows], [f"p{patient}" for patient, _ in rows])
    try:
        split = split_by_seed(cases, SplitRule(0.6, 0.2, seed=seed))
    except UserError:
        return  # too few normal patients
    sides = {}
    for case in cases:
        assert sides.setdefault(case.patient, split[case.id]) == split[case.id]
        assert case.label == 0 or split[case.id] == "test"
    assert set(split) == {case.id for case in cases}


@pytest.mark.parametrize("train_normals", [100, 1, 0.001])
def test_count_that_leaves_nobody_is_refused(train_normals):
    with pytest.raises(UserError, match=r"data\.split\.train_normals"):
        split_by_seed(HEADCT, SplitRule(train_normals, 0.1, seed=0))


def test_users_file_is_followed(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id, split\n000,test\n001,train\n002,val\n")
    assert split_by_file(_cases([1, 0, 0]), path) == {"000": "test", "001": "train", "002": "val"}


def test_users_file_may_come_from_a_spreadsheet(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id;split\n000;test\n001;train\n002;\n;\n", encoding="utf-8-sig")
    assert split_by_file(_cases([1, 0, 0]), path) == {"000": "test", "001": "train", "002": ""}


def test_a_case_whose_split_is_empty_is_left_out(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id,split\n000,\n001,train\n002,\n003,test\n")
    cases = _cases([1, 0, 0, 1], ["a", "b", "b", "c"])  # also one whose patient trains
    assert split_by_file(cases, path) == {"000": "", "001": "train", "002": "", "003": "test"}


@given(st.lists(st.booleans(), min_size=30, max_size=90), st.integers(2, 6), st.integers(0, 9), st.integers(0, 9))
def test_blocks_are_judged_once_each_and_nothing_near_them_is_used(alone, folds, seed, step):
    starts = [number if own or not number else -1 for number, own in enumerate(alone)]
    group = [max(start for start in starts[: number + 1] if start >= 0) for number in range(len(starts))]
    cases = _cases([1] * 4 + [0] * len(alone), [f"odd{i}" for i in range(4)] + [f"p{start}" for start in group])
    tested = []
    for fold in range(folds):
        rule = SplitRule(folds=folds, fold=fold, val_fraction=step / 20, seed=seed, blocks=True)
        try:
            split = split_by_seed(cases, rule)
        except UserError:
            return  # every patient reaches into the block
        assert [split[case.id] for case in cases[:4]] == ["test"] * 4
        places = {
            name: [i for i, case in enumerate(cases[4:]) if split[case.id] == name] for name in ("train", "val", "test")
        }
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert not {group[i] for i in places[one]} & {group[i] for i in places[other]}
            assert all(abs(i - j) > MARGIN for i in places[one] for j in places[other])
        assert bool(places["val"]) == bool(step)
        tested += places["test"]
    assert tested == list(range(len(alone)))


def test_blocks_of_head_ct():
    normals = range(100, 200)
    for seed in range(8):
        split = split_by_seed(HEADCT, SplitRule(75, 0.1, seed=seed, blocks=True))
        first = 100 + 25 * (seed % 4)
        assert [i for i in normals if split[f"{i:03d}"] == "test"] == list(range(first, first + 25))
        assert _counts(split)[0] in (62, 64)
        assert _counts(split)[1:] == [7, 125]


@pytest.mark.parametrize("rule", [{"train_normals": 100}, {"train_normals": 0.2}, {"folds": 2}, {"folds": 1000}])
def test_blocks_that_leave_nobody_are_refused(rule):
    few = _cases([1, 0, 0, 0])
    with pytest.raises(UserError, match=r"blocks by data\.split\."):
        split_by_seed(few, SplitRule(**rule, blocks=True))


FAULTS = {
    "unknown ids 7": "id,split\n000,test\n001,train\n002,train\n7,train\n",
    "no row for the ids 002": "id,split\n000,test\n001,train\n",
    "anomalous cases in train or val.* 000": "id,split\n000,train\n001,train\n002,test\n",
    "a patient is in two splits.* 001, 002": "id,split\n000,test\n001,train\n002,test\n",
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


def _kinds(count):
    return [
        Case(f"{i:03d}", f"p{i // 2}", Path("x"), int(i % 8 >= 6), class_name="abc"[i // 2 % 3]) for i in range(count)
    ]


def test_every_case_is_judged_in_exactly_one_fold_and_every_fold_has_its_share():
    cases = _kinds(240)
    judged, patients = [], {case.id: case.patient for case in cases}
    for fold in range(5):
        split = split_by_seed(cases, SplitRule(folds=5, fold=fold, seed=3))
        test = [id for id, name in split.items() if name == "test"]
        anomalous = [case for case in cases if case.label == 1 and split[case.id] == "test"]
        assert len(anomalous) == 12
        assert sorted(case.class_name for case in anomalous) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
        assert not {patients[id] for id in test} & {patients[id] for id, name in split.items() if name != "test"}
        assert all(split[case.id] in ("test", "") for case in cases if case.label == 1)
        assert [list(split.values()).count(name) for name in ("train", "val")] == [130, 14]
        judged += test
    assert sorted(judged) == sorted(patients)


def test_owners_split_stands_and_only_held_out_normals_are_drawn():
    cases = [
        Case(f"{i:02d}", f"p{i}", Path("x"), int(i % 4 == 3), split="train" if i < 20 else "test") for i in range(28)
    ]
    split = split_by_seed(cases, SplitRule(val_fraction=0.2, seed=1))
    assert [split[case.id] for case in cases[20:]] == ["test"] * 8
    assert sorted(split[case.id] for case in cases[:20]) == [""] * 5 + ["train"] * 12 + ["val"] * 3
    assert all(split[case.id] == "" for case in cases[:20] if case.label == 1)


def test_of_an_official_split_there_are_no_folds():
    """All of them would be that split, and a study would take one result for several."""
    cases = [Case(f"{i:02d}", f"p{i}", Path("x"), int(i > 15), split="train" if i < 8 else "test") for i in range(20)]
    with pytest.raises(UserError, match=r"folds=4: the data set has an official split.* set folds to 0"):
        split_by_seed(cases, SplitRule(folds=4))


def test_owners_val_is_kept_where_there_is_one():
    cases = [Case(str(i), f"p{i}", Path("x"), int(i == 9), split=["train", "val", "test"][i % 3]) for i in range(10)]
    cases[9] = Case("9", "p9", Path("x"), 1, split="test")
    split = split_by_seed(cases, SplitRule(val_fraction=0.5))
    assert [split[str(i)] for i in range(3)] == ["train", "val", "test"]
    assert list(split.values()).count("val") == 3


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_contamination_hides_that_share_and_judges_the_rest(share):
    split = split_by_seed(HEADCT, SplitRule(75, 0.1, contamination=share))
    clean = split_by_seed(HEADCT, SplitRule(75, 0.1))
    labels = {case.id: case.label for case in HEADCT}
    train = [id for id, name in split.items() if name == "train"]
    assert sum(labels[id] for id in train) / len(train) == pytest.approx(share, abs=0.01)
    assert all(split[id] == clean[id] for id in split if labels[id] == 0)
    assert split == split_by_seed(HEADCT, SplitRule(75, 0.1, contamination=share))
    assert split != split_by_seed(HEADCT, SplitRule(75, 0.1, seed=1, contamination=share))


def test_contamination_leaves_every_fold_its_anomalies():
    """Those of the other folds hide among the normals, so that the pooled folds judge every anomaly once."""
    cases, share = _cases([*[1] * 40, *[0] * 100]), 0.05
    for fold in range(4):
        rule = SplitRule(0.75, 0.1, folds=4, fold=fold)
        plain, hidden = split_by_seed(cases, rule), split_by_seed(cases, replace(rule, contamination=share))
        assert [case for case, name in hidden.items() if name == "test"] == [
            case for case, name in plain.items() if name == "test"
        ]
        moved = [case.id for case in cases if hidden[case.id] == "train" and case.label == 1]
        assert len(moved) == round(share / (1 - share) * list(plain.values()).count("train"))


def test_contamination_is_the_share_that_was_asked_for():
    """Where patients have normal pictures, too, these neither train, which would dilute it, nor are they judged."""
    cases = [
        Case(id=f"{patient}{label}", patient=str(patient), image=Path("x.png"), label=label)
        for patient in range(200) for label in ((0, 1) if patient < 100 else (0,))
    ]  # fmt: skip
    for share in (0.1, 0.4):
        split = split_by_seed(cases, SplitRule(60, 0.1, contamination=share))
        train = [case for case in cases if split[case.id] == "train"]
        assert sum(case.label for case in train) / len(train) == pytest.approx(share, abs=0.01)
        hidden = {case.patient for case in train if case.label}
        assert not any(split[case.id] == "test" for case in cases if case.patient in hidden)


def test_contamination_that_takes_every_anomaly_is_refused():
    with pytest.raises(UserError, match=r"contamination.* at least one must train and one be left"):
        split_by_seed(_cases([1, 1, *[0] * 100]), SplitRule(90, 0.1, contamination=0.3))


def test_healthy_patches_of_anomalous_patients_may_train():
    cases = _cases([1] * 20)
    split = split_by_seed(cases, SplitRule(0.75, 0.1, within=True))
    assert _counts(split) == [13, 2, 5]


def test_empty_class_is_refused():
    with pytest.raises(UserError, match="no case is anomalous"):
        split_by_seed(_cases([0] * 20), SplitRule())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": 0.5}, r"\[0, 0.5\)"),
        ({"folds": 1}, "at least two folds"),
        ({"folds": 4, "fold": 4}, "counted from 0"),
        ({"train_normals": 0}, r"\(0, inf\)"),
        ({"val_fraction": 1.0}, r"\[0, 1\)"),
    ],
)
def test_rules_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Split(**settings)


def test_more_folds_than_patients_are_refused():
    with pytest.raises(UserError, match="too few for so many folds"):
        split_by_seed(_cases([0, 1]), SplitRule(folds=5, fold=4))


@pytest.mark.parametrize("few", ["anomalous", "normal"])
def test_a_fold_without_anomalous_or_normal_patients_is_refused_in_every_fold(few):
    """It has no AUROC, and so the mean over folds has none."""
    cases = _cases([int((i < 3) == (few == "anomalous")) for i in range(20)])
    for fold in range(4):
        with pytest.raises(UserError, match=f"folds=4: 3 {few} patients are too few .* use fewer folds"):
            split_by_seed(cases, SplitRule(folds=4, fold=fold, val_fraction=0))
    for fold in range(3):
        split = split_by_seed(cases, SplitRule(folds=3, fold=fold, val_fraction=0))
        assert {case.label for case in cases if split[case.id] == "test"} == {0, 1}


def test_cases_whose_place_the_owners_left_open_are_drawn():
    extra = [Case(f"x{i}", f"x{i}", Path("x"), i % 2, split="test") for i in range(6)]
    split = split_by_seed([*HEADCT, *extra], SplitRule(75, 0.1))
    assert {split[case.id] for case in extra} == {"test"}
    assert {id: split[id] for id in split if id[0] != "x"} == split_by_seed(HEADCT, SplitRule(75, 0.1))


LABELLED = [
    Case(
        f"{patient:03d}-{eye}",
        f"p{patient}",
        Path("a.png"),
        int(patient % 3 > 0),
        class_name=("", "a", "b")[patient % 3],
    )
    for patient in range(60)
    for eye in range(2)
]


def _by_patient(split):
    return {case.patient: split[case.id] for case in LABELLED}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [Classes(), Classes(("a", "b"), multilabel=True), Classes(("normal", "b"))])
def test_all_classes_train_validate_and_are_tested_by_patient(seed, classes):
    split = split_supervised(LABELLED, SplitRule(supervised=True, val_fraction=0.25, seed=seed), classes)
    assert all(split[f"{patient:03d}-0"] == split[f"{patient:03d}-1"] for patient in range(60))
    for name in ("", "a", "b"):
        counts = Counter(split[case.id] for case in LABELLED if case.class_name == name)
        left_out = name == "a" and "a" not in classes.names and "anomalous" not in classes.names
        assert counts == ({"": 40} if left_out else {"train": 24, "val": 8, "test": 8})


def test_each_patient_is_tested_in_one_fold_and_each_fold_has_each_class():
    tested = Counter()
    for fold in range(5):
        rule = SplitRule(supervised=True, folds=5, fold=fold, seed=3)
        split = _by_patient(split_supervised(LABELLED, rule, Classes(("normal", "a", "b"))))
        held_out = [patient for patient, name in split.items() if name == "test"]
        assert Counter(int(patient[1:]) % 3 for patient in held_out) == {0: 4, 1: 4, 2: 4}
        assert {"train", "val", "test"} == set(split.values())
        tested.update(held_out)
    assert set(tested.values()) == {1}
    assert len(tested) == 60


def test_the_owners_split_is_kept_and_validation_is_drawn_from_its_training_patients():
    owned = [replace(case, split="test" if int(case.patient[1:]) < 15 else "train") for case in LABELLED]
    split = split_supervised(owned, SplitRule(supervised=True, val_fraction=0.2), Classes())
    assert all((split[case.id] == "test") == (case.split == "test") for case in owned)
    validated = {case.patient for case in owned if split[case.id] == "val"}
    assert Counter(int(patient[1:]) % 3 for patient in validated) == {0: 3, 1: 3, 2: 3}
    assert not validated & {case.patient for case in owned if split[case.id] == "train"}
    with_own = [replace(case, split="val") if case.patient == "p20" else case for case in owned]
    kept = split_supervised(with_own, SplitRule(supervised=True), Classes())
    assert all(kept[case.id] == case.split for case in with_own)
    with pytest.raises(UserError, match="official split, which is kept"):
        split_supervised(owned, SplitRule(supervised=True, folds=5), Classes())


def test_of_a_class_of_two_patients_one_is_tested_and_of_three_one_validates_too():
    few = [
        Case(f"{name}{i}", f"{name}{i}", Path("a.png"), int(name != "n"), class_name=name)
        for name, count in (("n", 40), ("x", 2), ("y", 3), ("z", 1))
        for i in range(count)
    ]
    for seed in range(20):
        split = split_supervised(few, SplitRule(supervised=True, seed=seed), Classes(("normal", "x", "y", "z")))
        assert sorted(split[f"x{i}"] for i in range(2)) == ["test", "train"]
        assert sorted(split[f"y{i}"] for i in range(3)) == ["test", "train", "val"]
        assert split["z0"] == "train"


def test_more_folds_than_patients_of_the_rarest_class_are_refused():
    few = [case for case in LABELLED if case.class_name != "b" or int(case.patient[1:]) < 9]
    with pytest.raises(UserError, match="folds=5: only 3 patients are of class 'b'; use at most 3 folds"):
        split_supervised(few, SplitRule(supervised=True, folds=5), Classes(("normal", "a", "b")))


def test_labelled_anomalies_cannot_be_hidden_among_normals_as_well():
    with pytest.raises(UserError, match=r"contamination=0\.1 hides anomalies.*set one of the two only"):
        SplitRule(supervised=True, contamination=0.1)


def test_too_few_patients_are_said():
    one = [case for case in LABELLED if case.patient == "p1"]
    with pytest.raises(UserError, match=r"1 patients are too few for data\.split\.test_fraction=0\.2"):
        split_supervised(one, SplitRule(supervised=True), Classes())
