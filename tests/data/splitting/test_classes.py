"""What is known of a case becomes a target per class, and every part of a deal has its share of every class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.data.splitting.classes import Classes, Coded, Labels, dealt
from anomaly_lab.types import UserError

BAGS = Coded.of(
    [
        Labels(0, ""),
        Labels(1, "Gun"),
        Labels(1, "Gun+Knife"),
        Labels(1, "other"),
        Labels(0, "", ("Gun",)),
        Labels(1, ""),
    ]
)


def test_items_of_a_bag_are_each_yes_no_or_unknown() -> None:
    targets = Classes(("Gun", "Knife"), multilabel=True).targets(BAGS)
    assert targets.dtype == np.int8
    assert targets.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0], [-1, 0], [0, 0]]


def test_a_plus_at_the_end_belongs_to_the_name() -> None:
    labels = Coded.of([Labels(0, ""), Labels(1, "CD8"), Labels(1, "CD8+"), Labels(1, "CD8+Gun"), Labels(1, "Gun+CD8+")])
    assert labels.strata()[0] == ["CD8", "CD8+", "Gun", "normal"]
    assert Classes(("CD8", "CD8+", "Gun"), multilabel=True).targets(labels).tolist() == [
        [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1]]  # fmt: skip


def test_by_default_the_label_decides_whatever_the_class_and_whatever_is_unknown() -> None:
    assert Classes().targets(BAGS).argmax(1).tolist() == [0, 1, 1, 1, 0, 1]
    assert Classes().keeps(BAGS).all()


def test_what_is_not_of_exactly_one_class_is_left_out_and_counted() -> None:
    classes = Classes(("normal", "Gun", "Knife"))
    assert classes.keeps(BAGS).tolist() == [True, True, False, False, False, False]
    assert classes.left_out(BAGS) == {"Gun+Knife": 1, "other": 1, "normal (Gun unknown)": 1, "anomalous": 1}
    assert (classes.targets(BAGS)[~classes.keeps(BAGS)] == -1).all()
    pair = Classes(("Gun", "other"))  # "normal" need not be among them
    assert pair.targets(BAGS)[pair.keeps(BAGS)].tolist() == [[1, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("names", "multilabel", "said"),
    [
        (("Gun", "Gun"), True, "'Gun' appears twice"),
        (("normal", "Gun"), True, "normal means none of the classes; leave it out"),
        (("Gun",), False, "too few classes"),
        ((), True, "too few classes"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(names: tuple[str, ...], multilabel: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Classes(names, multilabel)


def test_a_class_of_no_case_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"no case is of class 'gun'\. Did you mean: 'Gun'\? There are Gun, Knife, other"
    ):
        Classes(("gun",), multilabel=True).refuse_absent(BAGS)
    Classes(("normal", "anomalous")).refuse_absent(Coded.of([Labels(1, "Gun")]))  # normal patches of it may train


def test_a_class_that_is_unknown_everywhere_is_refused_as_such() -> None:
    bags = Coded.of([Labels(0, "", ("Saw",)), Labels(1, "Gun", ("Saw",))])
    with pytest.raises(UserError, match="of every case it is unknown whether it is of class 'Saw'"):
        Classes(("Gun", "Saw"), multilabel=True).refuse_absent(bags)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (Labels(1, "normal"), r"a\.png: it is labelled anomalous and is of class 'normal'"),
        (Labels(1, "Gun+Knife", ("Knife",)), r"a\.png: it is of class 'Knife', which is also unknown"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(labels: Labels, said: str) -> None:
    with pytest.raises(UserError, match=said):
        labels.refuse_contradictions("a.png")


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_share_patients_of_one_class_evenly(kinds: list[int], folds: int, seed: int) -> None:
    has = np.eye(4, dtype=bool)[kinds]
    part = dealt(has, [1 / folds] * folds, np.random.default_rng(seed))
    for of_class in has.T:
        counts = np.bincount(part[of_class], minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert set(part.tolist()) <= set(range(folds))


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=20, max_size=60), st.integers(0, 99))
def test_patients_of_several_classes_are_dealt_by_their_rarest(rows: list[list[bool]], seed: int) -> None:
    has = np.array(rows)
    part = dealt(has, [0.6, 0.2, 0.2], np.random.default_rng(seed))
    assert ((part >= 0) & (part < 3)).all()
    rarest = has[:, has.sum(0).argmin()]
    counts = np.bincount(part[rarest], minlength=3)
    assert (abs(counts - rarest.sum() * np.array([0.6, 0.2, 0.2])) < 1).all()


def test_a_million_patients_are_dealt_without_a_loop_over_them() -> None:
    has = np.random.default_rng(0).random((1_000_000, 5)) < 0.01
    part = dealt(has, [0.9, 0.1], np.random.default_rng(0))
    assert abs(part[has[:, 0]].mean() - 0.1) < 0.001
