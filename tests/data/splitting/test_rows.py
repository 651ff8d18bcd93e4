"""Rows of the splits by hand: who trains, who is held out, who is judged, and how many at most."""

from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.data.splitting.rows import Limits, in_share, rows_of_splits, whole
from anomaly_lab.data.splitting.splits import SplitRule
from anomaly_lab.data.store.index import Index
from anomaly_lab.types import Case

#       0        1        2        3      4       5       6       7        8 (left out)  9   10
SPLIT = ["train", "train", "train", "val", "test", "test", "test", "train", "", "val", "train"]
LABEL = [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1]


@pytest.fixture
def index() -> Index:
    return Index.of_cases([Case(str(i), f"p{i}", Path(f"{i}.png"), label) for i, label in enumerate(LABEL)])


def rows(
    index: Index,
    limits: dict[str, float] | None = None,
    seed: int = 0,
    contamination: float = 0.0,
    supervised: bool = False,
) -> dict[str, list[int]]:
    split = {str(i): name for i, name in enumerate(SPLIT)}
    rule = SplitRule(seed=seed, contamination=contamination, supervised=supervised)
    found = rows_of_splits(index, split, rule, Limits(**limits or {}).given())
    return {name: some.tolist() for name, some in found.items()}


def test_normals_train_and_are_held_out_and_both_are_judged(index: Index) -> None:
    assert rows(index) == {"train": [0, 1, 2], "val": [3], "test": [4, 5, 6]}


def test_contamination_hides_anomalies_among_those_that_train(index: Index) -> None:
    assert rows(index, contamination=0.4)["train"] == [0, 1, 2, 7, 10]  # two in five


def test_labelled_anomalies_have_lists_of_their_own(index: Index) -> None:
    found = rows(index, supervised=True)
    assert found == rows(index) | {"train_anomalous": [7, 10], "val_anomalous": [9]}
    assert whole({name: np.array(some) for name, some in found.items()})["train"].tolist() == [0, 1, 2, 7, 10]


def test_limits_of_train_and_val_are_those_of_both_kinds_together(index: Index) -> None:
    drawn = [rows(index, {"train": 3, "val": 1}, seed=seed, supervised=True) for seed in range(20)]
    assert all(len(one["train"] + one["train_anomalous"]) == 3 for one in drawn)
    assert all(len(one["val"] + one["val_anomalous"]) == 1 for one in drawn)
    assert {len(one["train_anomalous"]) for one in drawn} == {0, 1, 2}


def test_limits_are_counts_or_fractions_drawn_by_the_seed(index: Index) -> None:
    few = rows(index, {"train": 2, "test_anomalous": 0.5}, seed=1)
    assert (len(few["train"]), few["val"], len(few["test"])) == (2, [3], 2)
    assert set(few["train"]) < {0, 1, 2}
    assert few["test"][0] == 4
    assert few == rows(index, {"test_anomalous": 0.5, "train": 2}, seed=1)  # the order they are written in is no matter
    assert len({tuple(rows(index, {"train": 2}, seed=seed)["train"]) for seed in range(10)}) == 3


def test_more_than_there_are_is_all(index: Index) -> None:
    assert rows(index, {"train": 50, "val": 50}) == rows(index)


@pytest.mark.parametrize("limits", [{"train": 0}, {"val": -1}, {"test_normal": float("nan")}])
def test_limits_that_cannot_be_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"takes a number in \(0, inf\)"):
        Limits(**limits)


def test_limits_that_are_given_come_in_the_order_of_the_splits() -> None:
    assert list(Limits(val=3, train=2).given()) == ["train", "val"]
    assert Limits().given() == {}


def test_shares_have_no_patient_in_common_and_part_of_every_class() -> None:
    patients = np.repeat(np.arange(40), 3)
    classes = np.zeros((120, 2), bool)
    classes[patients < 10, 0] = classes[patients % 10 == 0, 1] = True  # patient 0 alone has both
    first, last = (in_share(patients, classes, part, seed=3) for part in ((0.0, 0.8), (0.8, 1.0)))
    assert (first ^ last).all()
    assert not {*patients[first]} & {*patients[last]}
    assert len({*patients[last]}) == 8  # of 9 with the first class, 3 with the second, 1 with both, 27 with none
    assert classes[last].any(0).all()
    assert (in_share(patients, classes, (0.8, 1.0), seed=3) == last).all()
    assert (in_share(patients, classes, (0.8, 1.0), seed=4) != last).any()
    assert in_share(patients, classes, (0.0, 1.0), seed=3).all()
