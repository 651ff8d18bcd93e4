"""Who trains and who is judged: by patient, before any pixel is read; train and val hold normals only."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anomaly_lab.types import Case, UserError

SPLITS = ("train", "val", "test")


def split_by_seed(cases: Sequence[Case], train_normals: float, val_fraction: float, seed: int) -> dict[str, str]:
    """Draw the training patients from those who are normal throughout; everybody else is judged.

    Args:
        cases: the whole data set.
        train_normals: how many normal patients train; below 1 it is their fraction.
        val_fraction: fraction of these held out for thresholds, at least one patient; 0 for none.
        seed: of the draw.

    Returns:
        Split of every case id: "train", "val" or "test".

    Raises:
        UserError: no normal patient would be left to train or to judge by.
    """
    anomalous = {case.patient for case in cases if case.label == 1}
    normal = sorted({case.patient for case in cases} - anomalous)
    count = round(train_normals if train_normals >= 1 else train_normals * len(normal))
    held_out = max(1, round(val_fraction * count)) if val_fraction > 0 else 0
    if not held_out < count < len(normal):
        raise UserError(
            f"data.train_normals={train_normals:g} with data.val_fraction={val_fraction:g} cannot be met by "
            f"{len(normal)} normal patients: some must train and some be left to judge; change one of the two"
        )
    drawn = np.random.default_rng(seed).permutation(len(normal))[:count]
    split = {normal[i]: "train" for i in drawn} | {normal[i]: "val" for i in drawn[count - held_out :]}
    return {case.id: split.get(case.patient, "test") for case in cases}


def split_by_file(cases: Sequence[Case], path: Path) -> dict[str, str]:
    """Read the user's own split: a CSV with the columns id, split (train, val or test), a row for every case.

    Raises:
        UserError: unreadable file or column, an id that is unknown, missing or given twice, an unknown split,
            a patient in two splits, an anomaly in train or val.
    """
    splits = _read(path)
    known = {case.id for case in cases}
    for fault, ids in (("unknown ids", splits.keys() - known), ("no row for the ids", known - splits.keys())):
        if ids:
            raise UserError(f"{path}: {fault} {_some(ids)}; ids look like {min(known)}, put the file right")
    misplaced = [case.id for case in cases if case.label == 1 and splits[case.id] != "test"]
    if misplaced:
        some = _some(misplaced)
        raise UserError(f"{path}: anomalies in train or val, which hold normals only: {some}; move them to test")
    sides = defaultdict(set)
    for case in cases:
        sides[case.patient].add(splits[case.id])
    torn = [case.id for case in cases if len(sides[case.patient]) > 1]
    if torn:
        raise UserError(f"{path}: a patient on both sides of the split, cases {_some(torn)}; keep them together")
    return splits


def _read(path: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            if not {"id", "split"} <= set(rows.fieldnames or []):
                raise UserError(f"{path}: a split file needs the columns id,split; it has {rows.fieldnames}")
            for row in rows:
                if row["split"] not in SPLITS:
                    raise UserError(f"{path}, line {rows.line_num}: split is {row['split']!r}, not one of {SPLITS}")
                if row["id"] in splits:
                    raise UserError(f"{path}, line {rows.line_num}: id {row['id']} appears twice; keep one row")
                splits[row["id"]] = row["split"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the split file (data.splits) cannot be read ({error})") from error
    return splits


def _some(ids: set[str] | Sequence[str]) -> str:
    names = sorted(ids)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
