"""Who trains and who is judged: by patient, before any pixel is read; train and val hold normals only."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.types import Case, Range, Seed, UserError, refuse_out_of_range

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """How patients are dealt out.

    Attributes:
        train_normals: how many normal patients train, those held out included; below 1 it is their fraction.
        val_fraction: fraction of these held out for thresholds, at least one patient; 0 for none.
        folds: in how many parts all patients are dealt, normal and anomalous ones alike; 0 for a single split.
        fold: the part that is judged, from 0; the normals of the other parts train.
        contamination: share of anomalous cases hidden among those that train, for studies.
        file: CSV with the columns id, split that replaces the drawn split.
    """

    train_normals: Annotated[float, Range("(0, inf)")] = 0.75
    val_fraction: Annotated[float, Range("[0, 1)")] = 0.1
    folds: Annotated[int, Range("[0, 1000]")] = 0
    fold: Annotated[int, Range("[0, 999]")] = 0
    contamination: Annotated[float, Range("[0, 0.5)")] = 0.0
    file: str | None = None

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))
        if self.folds and not (self.folds >= 2 and self.fold < self.folds):
            raise ValueError(f"fold={self.fold} of folds={self.folds}: at least two folds, counted from 0")


@dataclass(frozen=True)
class SplitRule(Split):
    """The same with what an experiment adds.

    Attributes:
        seed: of every draw.
        within: healthy patches of anomalous patients train as well, so every patient may.
    """

    seed: Seed = 0
    within: bool = False

    def __str__(self) -> str:
        how = f"fold {self.fold} of {self.folds}" if self.folds else f"train_normals={self.train_normals:g}"
        hidden = f", contamination={self.contamination:g}" if self.contamination else ""
        return f"{how}, val_fraction={self.val_fraction:g}, seed={self.seed}{hidden}"


def split_by_seed(cases: Sequence[Case], rule: SplitRule) -> dict[str, str]:
    """Draw the training patients from those who are normal throughout; everybody else is judged.

    Where the owners of the data fixed the split (`Case.split`), it stands, and only held-out normals are drawn from
    those that train; their anomalous training cases are left out. Cases whose place they left open are drawn.

    Returns:
        Split of every case id: "train", "val", "test", or "" for those left out.

    Raises:
        UserError: no normal patient would be left to train or to judge by, or a class would be empty.
    """
    anomalous = {case.patient for case in cases if case.label == 1}
    if not anomalous:
        raise UserError("no case is anomalous: there is nothing to judge by; check the labels")
    split: dict[str, str] = {}
    if free := [case for case in cases if not case.split]:
        split |= (_folds if rule.folds else _drawn)(free, rule, anomalous)
    if fixed := [case for case in cases if case.split]:
        split |= _official(fixed, rule)
    return _contaminated(cases, rule, split)


def _drawn(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> dict[str, str]:
    normal = _eligible(cases, rule, anomalous)
    count = round(rule.train_normals if rule.train_normals >= 1 else rule.train_normals * len(normal))
    held_out = _held_out(rule, count)
    if not held_out < count < len(normal):
        raise UserError(
            f"data.split.train_normals={rule.train_normals:g} with data.split.val_fraction={rule.val_fraction:g} "
            f"cannot be met by {len(normal)} normal patients: some must train and some be left to judge; change one"
        )
    drawn = stream(rule.seed, "split").permutation(len(normal))[:count]
    split = {normal[i]: "train" for i in drawn} | {normal[i]: "val" for i in drawn[count - held_out :]}
    return {case.id: split.get(case.patient, "test") for case in cases}


def _official(cases: Sequence[Case], rule: SplitRule) -> dict[str, str]:
    """Case by case as the owners have it, val's normals drawn from the training patients where they have none."""
    split = {case.id: case.split or "" for case in cases}
    if not rule.within:
        split |= {case.id: "" for case in cases if case.split != "test" and case.label == 1}
    names = set(split.values())
    if "train" in names and "val" not in names and rule.val_fraction:
        normal = sorted({case.patient for case in cases if split[case.id] == "train"})
        held_out = _held_out(rule, len(normal))
        if not held_out < len(normal):
            raise UserError(
                f"only {len(normal)} normal patients train, none can be held out; set data.split.val_fraction=0"
            )
        order = stream(rule.seed, "split").permutation(len(normal))[len(normal) - held_out :]
        out = {normal[i] for i in order}
        split |= {case.id: "val" for case in cases if case.patient in out and split[case.id] == "train"}
    return split


def _folds(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> dict[str, str]:
    """Patients dealt like cards, kind by kind: every part has its share of each; anomalies outside are left out."""
    kinds: dict[str, set[str]] = {}
    for case in cases:
        kinds.setdefault(case.patient, set()).add(f"{case.label}{case.class_name}")
    rng = stream(rule.seed, "split")
    names = sorted(kinds)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    dealt = sorted(shuffled, key=lambda patient: sorted(kinds[patient]))  # stable: the order within a kind is drawn
    part = {patient: i % rule.folds for i, patient in enumerate(dealt)}
    normal = [p for p in shuffled if part[p] != rule.fold and (rule.within or p not in anomalous)]
    held_out = _held_out(rule, len(normal))
    if not held_out < len(normal) or rule.fold not in part.values():
        raise UserError(
            f"data.split.folds={rule.folds}: {len(names)} patients are too few to deal out; take fewer folds"
        )
    split = dict.fromkeys(normal, "train") | dict.fromkeys(normal[len(normal) - held_out :], "val")
    return {case.id: "test" if part[case.patient] == rule.fold else split.get(case.patient, "") for case in cases}


def _contaminated(cases: Sequence[Case], rule: SplitRule, split: dict[str, str]) -> dict[str, str]:
    """Move anomalous patients to train until their cases are the asked share; sets of healthy patches do it by rows."""
    if not rule.contamination or rule.within:
        return split
    training = sum(name == "train" for name in split.values())
    wanted = round(rule.contamination / (1 - rule.contamination) * training)
    size: dict[str, int] = {}
    for case in cases:
        if case.label == 1:
            size[case.patient] = size.get(case.patient, 0) + 1
    names = sorted(size)
    shuffled = [names[i] for i in stream(rule.seed, "contaminated patients").permutation(len(names))]
    before = np.cumsum([0, *(size[patient] for patient in shuffled[:-1])])
    moved = {patient for patient, hidden in zip(shuffled, before, strict=True) if hidden < wanted}
    if len(moved) == len(names) or not wanted:
        raise UserError(
            f"data.split.contamination={rule.contamination:g} means {wanted} of {sum(size.values())} anomalous cases: "
            "at least one must be hidden and one be left to judge; change the share"
        )
    return split | {case.id: "train" for case in cases if case.patient in moved}


def _eligible(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> list[str]:
    everybody = {case.patient for case in cases}
    return sorted(everybody if rule.within else everybody - anomalous)


def _held_out(rule: SplitRule, count: int) -> int:
    return max(1, round(rule.val_fraction * count)) if rule.val_fraction > 0 else 0


def split_by_file(cases: Sequence[Case], path: Path, within: bool = False) -> dict[str, str]:
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
    misplaced = [case.id for case in cases if case.label == 1 and splits[case.id] != "test" and not within]
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
        raise UserError(f"{path}: the split file (data.split.file) cannot be read ({error})") from error
    return splits


def _some(ids: set[str] | Sequence[str]) -> str:
    names = sorted(ids)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
