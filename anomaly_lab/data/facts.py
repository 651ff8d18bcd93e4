"""What a run records of its data set, and the data sheet and the report tell: counts, rules, remarks, leakage audit."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_lab.data.splitting.audit import audit, leaks
from anomaly_lab.data.splitting.classes import UNKNOWN
from anomaly_lab.data.splitting.rows import whole
from anomaly_lab.data.splitting.splits import SPLITS
from anomaly_lab.data.store.remarks import remarks

if TYPE_CHECKING:
    from anomaly_lab.data.datamodule import PatchDataModule

MAX_LISTED = 200  # cases in no split that are named; all are counted
MAX_CONCERNED = 20  # cases that a remark is about, of which so many are recorded


def facts_of(data: PatchDataModule) -> dict[str, Any]:
    """Return the facts about a data set, set up, as `record.DataFacts` has them.

    Args:
        data: the data set.

    Examples:
        >>> facts_of(data)["counts"]["train"]  # doctest: +SKIP
        {'normal': 67, 'anomalous': 0}
    """
    labels, patients = data.store.labels, np.array(data.store.index.columns["patient"])
    rows_of = whole(data.rows)
    count = {name: Counter(labels[rows].tolist()) for name, rows in rows_of.items()}
    found = audit(data.store, {"": np.arange(len(labels))} if data.unsplit else rows_of, data.declared)
    of_scans = remarks(data.store.scans())
    return {
        "name": data.name,
        "source": data.source,
        "root": str(data.folder.absolute()),
        "fingerprint": data.store.fingerprint,
        "bits": 8 * data.store.images.dtype.itemsize,
        "store": data.store.folder.name if data.stored else "none: pictures are read on demand",
        "counts": {name: {"normal": count[name][0], "anomalous": count[name][1]} for name in SPLITS},
        "patients": {name: len(np.unique(patients[rows])) for name, rows in rows_of.items()},
        "split_rule": _split_rule(data),
        "unsplit": data.unsplit,
        "limits": data.limits,
        "contamination": data.split_rule.contamination,
        "census": data.counted,
        "official": data.official,
        "skipped": list(data.store.skipped),
        "left_out": dict(data.left_out.most_common()),
        "in_no_split": _in_no_split(data),
        "remarks": [
            *(remark.text for remark in of_scans),
            *_remarks_on_classes(data),
            *leaks(found, grouped=bool(data.grouping)),
        ],
        "concerned": {remark.text: list(remark.cases[:MAX_CONCERNED]) for remark in of_scans if remark.cases},
        "audit": found,
        **({"groups": data.grouping} if data.grouping else {}),
        **({"classes": _of_classes(data)} if data.labelling else {}),
    }


def _in_no_split(data: PatchDataModule) -> dict[str, Any]:
    """Count and name the cases that the split leaves out."""
    out = [] if data.unsplit else [case for case, split in data.split.items() if not split]
    return {"count": len(out), "ids": out[:MAX_LISTED]}


def _of_classes(data: PatchDataModule) -> dict[str, Any]:
    """Return the classes to tell apart, and how many rows of each split are of each, are not, or may be."""
    assert data.targets is not None
    rows_of, names = whole(data.rows), data.classes
    counts = {
        split: {
            name: {word: int((column == value).sum()) for word, value in (("yes", 1), ("no", 0), ("unknown", UNKNOWN))}
            for name, column in zip(names, data.targets[rows].T, strict=True)
        }
        for split, rows in rows_of.items()
    }
    return {"names": list(names), "target_type": data.target_type, "counts": counts, "left_out": data.other_classes}


def _remarks_on_classes(data: PatchDataModule) -> list[str]:
    if data.labelling is None or data.unsplit:
        return []
    found = []
    for split, word in (("val", "validation"), ("test", "test")):
        absent = [name for name, (yes, _) in zip(data.classes, data.class_counts(split), strict=True) if not yes]
        if absent and len(whole(data.rows)[split]):
            found.append(f"No {word} case is of class {' or '.join(absent)}: nothing can be said of it there.")
    return found


def _split_rule(data: PatchDataModule) -> str:
    if data.unsplit:
        return f"none ({data.unsplit})"
    if data.split_rule.file is not None:
        return f"file {data.split_rule.file}"
    return f"official split where there is one; {data.split_rule}" if data.by_owners else str(data.split_rule)
