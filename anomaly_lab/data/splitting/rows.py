"""Which rows of the store train, are held out and are judged, once every case has its split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anomaly_lab.data.splitting.splits import SPLITS, SplitRule
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.data.store.index import Index
from anomaly_lab.types import UserError

LIMITS = ("train", "val", "test_normal", "test_anomalous")


def rows_of_splits(
    index: Index, split: Mapping[str, str], rule: SplitRule, limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Rows of each split: normal ones train, on random windows where there are any; the grid is judged.

    Args:
        index: of the store.
        split: of every case id.
        rule: whose contamination, if any, hides anomalous rows among those that train.
        limits: at most so many rows, as `checked_limits` gives them.
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


def checked_limits(limits: Mapping[str, float] | None) -> dict[str, float]:
    """The limits that are set, counts or fractions below 1, in the order of LIMITS.

    Raises:
        UserError: an unknown name, or nothing would be left.
    """
    limits = limits or {}
    if set(limits) - set(LIMITS) or any(limit <= 0 for limit in limits.values()):
        raise UserError(f"data.limits: {dict(limits)}; it takes {', '.join(LIMITS)}, counts or fractions above 0")
    return {name: float(limits[name]) for name in LIMITS if name in limits}


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
