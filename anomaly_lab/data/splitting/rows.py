"""Which rows of the store train, are held out and are judged, once every case has its split."""

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
    """Most rows of each split, drawn by the seed; a count, or below 1 a fraction; None for no limit.

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
        """The limits that are set."""
        return {name: float(limit) for name, limit in vars(self).items() if limit is not None}


def rows_of_splits(
    index: Index, split: Mapping[str, str], rule: SplitRule, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Rows of each split: normal ones train, on random windows where there are any; the grid is judged.

    Args:
        index: of the store.
        split: of every case id.
        rule: whose contamination, if any, hides anomalous rows among those that train.
        limits: at most so many rows, as `Limits.given` has them.
    """
    labels = index.labels()
    of_row = np.array([split[case] for case in index.columns["case"]])
    random = index.has_role("random")
    rows = {name: np.flatnonzero((of_row == name) & ~random) for name in SPLITS}
    training = np.flatnonzero((of_row == "train") & (random if random.any() else True))
    normal = training[labels[training] == 0]
    rows["train"], rows["val"] = normal, rows["val"][labels[rows["val"]] == 0]
    if rule.contamination:
        spoilt = np.flatnonzero((of_row == "train") & (labels == 1))
        wanted = round(rule.contamination / (1 - rule.contamination) * len(normal))
        hidden = stream(rule.seed, "contaminated rows").permutation(spoilt)[:wanted]
        rows["train"] = np.sort(np.concatenate([normal, hidden]))
    return _limited(rows, labels, rule.seed, limits)


def _limited(
    rows: dict[str, np.ndarray], labels: np.ndarray, seed: int, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """At most so many rows of each split as `limits` say."""
    anomalous = labels[rows["test"]] == 1
    parts = {"train": rows["train"], "val": rows["val"]}
    parts |= {"test_normal": rows["test"][~anomalous], "test_anomalous": rows["test"][anomalous]}
    for number, (name, limit) in enumerate(limits.items()):
        count = round(limit * len(parts[name])) if limit < 1 else int(limit)
        some = stream(seed, "limits", number).permutation(parts[name])[:count]
        parts[name] = np.sort(some)
    test = np.sort(np.concatenate([parts["test_normal"], parts["test_anomalous"]]))
    return {"train": parts["train"], "val": parts["val"], "test": test}
