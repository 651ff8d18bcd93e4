"""Rows of the store for training, validation and test, derived from the split of every case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from anomaly_lab.data.splitting.splits import SPLITS, SplitRule
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.index import Index
from anomaly_lab.types import Range, refuse_out_of_range

Limit = Annotated[float, Range("(0, inf)")]


@dataclass(frozen=True)
class Limits:
    """Maximum number of rows per split; rows beyond it are dropped at random, by the seed.

    Attributes:
        train, val, test_normal, test_anomalous: a count, or a fraction of the rows if below 1; None for no limit.

    Examples:
        >>> Limits(train=100, test_normal=0.5).given()
        {'train': 100.0, 'test_normal': 0.5}
    """

    train: Limit | None = None
    val: Limit | None = None
    test_normal: Limit | None = None
    test_anomalous: Limit | None = None

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))

    def given(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: float(limit) for name, limit in vars(self).items() if limit is not None}


def rows_of_splits(
    index: Index, split: Mapping[str, str], rule: SplitRule, limits: Mapping[str, float], chosen: bool = False
) -> dict[str, np.ndarray]:
    """Return the rows of the store that belong to each split.

    Normal rows train: random windows if the store has any, otherwise those of the grid. Validation and test use the
    windows of the grid. With a supervised rule the anomalous rows of the training and validation cases have lists of
    their own.

    Args:
        index: index of the store.
        split: split of every case id.
        rule: the split rule; its contamination adds anomalous rows to the training rows.
        limits: maximum number of rows, as returned by `Limits.given`.
        chosen: whether the index has those cases alone that were chosen by this function before: all of them stay.

    Returns:
        Sorted rows of "train", "val" and "test", and with a supervised rule of "train_anomalous" and "val_anomalous".

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.types import Case
        >>> cases = [Case(id=name, patient=name, image=Path(name), label=int(name == "d")) for name in "abcd"]
        >>> split = {"a": "train", "b": "val", "c": "test", "d": "test"}
        >>> rows = rows_of_splits(Index.of_cases(cases), split, SplitRule(), limits={})
        >>> {name: members.tolist() for name, members in rows.items()}
        {'train': [0], 'val': [1], 'test': [2, 3]}
    """
    labels = index.labels()
    of_row = np.array([split[case] for case in index.columns["case"]])
    random = index.has_role("random")
    rows = {name: np.flatnonzero((of_row == name) & ~random) for name in SPLITS}
    training = np.flatnonzero((of_row == "train") & (random if random.any() else True))
    if rule.supervised:
        grid = np.flatnonzero((of_row == "train") & ~random)  # random windows are normal ones
        rows |= {f"{name}_anomalous": part[labels[part] == 1] for name, part in (("train", grid), ("val", rows["val"]))}
    normal = training[labels[training] == 0]
    rows["train"], rows["val"] = normal, rows["val"][labels[rows["val"]] == 0]
    if rule.contamination:
        anomalous = np.flatnonzero((of_row == "train") & (labels == 1))
        share = rule.contamination / (1 - rule.contamination)
        wanted = len(anomalous) if chosen else round(share * len(normal))
        hidden = stream(rule.seed, "contaminated rows").permutation(anomalous)[:wanted]
        rows["train"] = np.sort(np.concatenate([normal, hidden]))
    return _limited(rows, labels, rule.seed, limits)


def _limited(
    rows: dict[str, np.ndarray], labels: np.ndarray, seed: int, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Reduce the rows of each split to `limits`; those of train and val hold for normal and anomalous rows together."""
    anomalous = labels[rows["test"]] == 1
    parts = {name: whole(rows)[name] for name in ("train", "val")}
    parts |= {"test_normal": rows["test"][~anomalous], "test_anomalous": rows["test"][anomalous]}
    for number, (name, limit) in enumerate(limits.items()):
        count = round(limit * len(parts[name])) if limit < 1 else int(limit)
        parts[name] = np.sort(stream(seed, "limits", number).permutation(parts[name])[:count])
    test = np.sort(np.concatenate([parts["test_normal"], parts["test_anomalous"]]))
    limited = {"train": parts["train"], "val": parts["val"], "test": test}
    return divided(limited, labels) if "train_anomalous" in rows else limited


def divided(rows: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Move the anomalous rows of train and val to lists of their own.

    Examples:
        >>> rows = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3])}
        >>> {name: part.tolist() for name, part in divided(rows, labels=np.array([0, 1, 0, 1])).items()}
        {'train': [0], 'val': [2], 'test': [3], 'train_anomalous': [1], 'val_anomalous': []}
    """
    apart = {name: rows[name][labels[rows[name]] == 0] for name in ("train", "val")}
    apart["test"] = rows["test"]
    return apart | {f"{name}_anomalous": rows[name][labels[rows[name]] == 1] for name in ("train", "val")}


def whole(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return all rows of train, val and test, sorted, with those that have a list of their own; undoes `divided`.

    Examples:
        >>> parts = {"train": [1, 4], "val": [0], "test": [3], "train_anomalous": [2]}
        >>> whole({name: np.array(part) for name, part in parts.items()})["train"].tolist()
        [1, 2, 4]
    """
    return {
        name: np.sort(np.concatenate([rows[name], rows[f"{name}_anomalous"]]))
        if f"{name}_anomalous" in rows
        else rows[name]
        for name in SPLITS
    }


def in_share(patients: np.ndarray, classes: np.ndarray, share: tuple[float, float], seed: int) -> np.ndarray:
    """Return which rows belong to a part of the patients that has its share of those of each set of classes.

    Args:
        patients: patient of each row, [N].
        classes: which classes each row is of, bool [N, K].
        share: beginning and end of the part, in [0, 1]; parts that do not overlap have no patient in common.
        seed: determines who is in which part.

    Returns:
        bool [N].

    Examples:
        >>> patients, classes = np.repeat(np.arange(10), 2), np.repeat([[False]] * 8 + [[True]] * 2, 2, axis=0)
        >>> first, last = (in_share(patients, classes, part, seed=0) for part in ((0, 0.5), (0.5, 1)))
        >>> int(first.sum()), int(first[-4:].sum()), bool((first ^ last).all())  # patients have two rows each
        (10, 2, True)
    """
    names, of_row = np.unique(patients, return_inverse=True)
    held = np.zeros((len(names), classes.shape[1]), bool)
    np.logical_or.at(held, of_row, classes)
    _, stratum = np.unique(held, axis=0, return_inverse=True)
    position = np.empty(len(names))
    order = stream(seed, "shares").permutation(len(names))
    for number in np.unique(stratum):
        members = order[stratum[order] == number]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(((share[0] <= position) & (position < share[1]))[of_row])
