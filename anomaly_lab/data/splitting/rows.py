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
    index: Index, split: Mapping[str, str], rule: SplitRule, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Return the rows of the store that belong to each split.

    Normal rows train: random windows if the store has any, otherwise those of the grid. Validation and test use the
    windows of the grid.

    Args:
        index: index of the store.
        split: split of every case id.
        rule: the split rule; its contamination adds anomalous rows to the training rows.
        limits: maximum number of rows, as returned by `Limits.given`.

    Returns:
        Sorted rows of "train", "val" and "test".

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
    normal = training[labels[training] == 0]
    rows["train"], rows["val"] = normal, rows["val"][labels[rows["val"]] == 0]
    if rule.contamination:
        anomalous = np.flatnonzero((of_row == "train") & (labels == 1))
        wanted = round(rule.contamination / (1 - rule.contamination) * len(normal))
        hidden = stream(rule.seed, "contaminated rows").permutation(anomalous)[:wanted]
        rows["train"] = np.sort(np.concatenate([normal, hidden]))
    return _limited(rows, labels, rule.seed, limits)


def _limited(
    rows: dict[str, np.ndarray], labels: np.ndarray, seed: int, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Reduce the rows of each split to `limits`."""
    anomalous = labels[rows["test"]] == 1
    parts = {"train": rows["train"], "val": rows["val"]}
    parts |= {"test_normal": rows["test"][~anomalous], "test_anomalous": rows["test"][anomalous]}
    for number, (name, limit) in enumerate(limits.items()):
        count = round(limit * len(parts[name])) if limit < 1 else int(limit)
        parts[name] = np.sort(stream(seed, "limits", number).permutation(parts[name])[:count])
    test = np.sort(np.concatenate([parts["test_normal"], parts["test_anomalous"]]))
    return {"train": parts["train"], "val": parts["val"], "test": test}
