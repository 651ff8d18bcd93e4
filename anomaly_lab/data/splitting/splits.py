"""Assign cases to train, val and test: by patient, before any pixel is read; labelled anomalies train only if asked."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from anomaly_lab.data.readers.tables import as_csv
from anomaly_lab.data.splitting.classes import ANOMALOUS, NORMAL, Classes, Coded, dealt
from anomaly_lab.data.splitting.streams import stream
from anomaly_lab.experiment.tables import open_table, restored
from anomaly_lab.types import Case, Range, Seed, UserError, refuse_out_of_range

SPLITS = ("train", "val", "test")
MARGIN = 2  # places in the listing by which training keeps away from a judged block


@dataclass(frozen=True)
class Split:
    """How patients are assigned to training, validation and test.

    Attributes:
        train_normals: number of normal patients for training and validation together; below 1 a fraction of all normal
            patients. Without `data.supervision=labels`.
        val_fraction: fraction of these used for validation (the held-out normals that set thresholds), at least one
            patient; 0 for none. With labels, of the patients of each class that are not tested.
        folds: number of folds for cross-validation over all patients, normal and anomalous; 0 for a single split. A
            split that is given, by `file` or with the data, has none.
        fold: the fold used as test split, from 0; the normals of the other folds train, and with
            `data.supervision=labels` their anomalies, too.
        contamination: fraction of anomalous cases among the training cases, to study contaminated training data.
        file: CSV file with the columns id, split, which replaces the random split; an empty split leaves a case out.
        by: "patient" keeps all pictures of a patient in one split. "image" lets patients cross splits, as some
            published studies do: a switch for reproduction only, which every page mentions.
        test_fraction: fraction of the patients of each class that are tested, with `data.supervision=labels`.

    Examples:
        >>> Split(train_normals=75, val_fraction=0.1).folds
        0
    """

    train_normals: Annotated[float, Range("(0, inf)")] = 0.75
    val_fraction: Annotated[float, Range("[0, 1)")] = 0.1
    folds: Annotated[int, Range("[0, 1000]")] = 0
    fold: Annotated[int, Range("[0, 999]")] = 0
    contamination: Annotated[float, Range("[0, 0.5)")] = 0.0
    file: str | None = None
    by: Literal["patient", "image"] = "patient"
    test_fraction: Annotated[float, Range("(0, 1)")] = 0.2

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))
        if self.folds and not (self.folds >= 2 and self.fold < self.folds):
            raise ValueError(
                f"fold={self.fold} of folds={self.folds}: takes at least two folds and a fold below their number, "
                "counted from 0"
            )


@dataclass(frozen=True)
class SplitRule(Split):
    """A `Split` with the settings that come from the experiment.

    Attributes:
        seed: seed of every draw.
        within: whether labels are per patch, so that normal patches of anomalous patients may train, too.
        supervised: whether labelled anomalies are in train and val, too.
        blocks: whether normals that follow each other are judged, because neighbours may be one patient.

    Examples:
        >>> str(SplitRule(train_normals=75, seed=1))
        'train_normals=75, val_fraction=0.1, seed=1'
    """

    seed: Seed = 0
    within: bool = False
    supervised: bool = False
    blocks: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.supervised and self.contamination:
            raise UserError(
                f"data.split.contamination={self.contamination:g} hides anomalies among normals, but with "
                "data.supervision=labels anomalies are labelled; set one of the two only"
            )

    def __str__(self) -> str:
        drawn = f"test_fraction={self.test_fraction:g}" if self.supervised else f"train_normals={self.train_normals:g}"
        how = f"fold {self.fold} of {self.folds}" if self.folds else drawn
        if self.blocks and not self.supervised:
            how = f"block {self.fold} of {self.folds}" if self.folds else f"the block of the seed, {drawn}"
            how += f", normals within ±{MARGIN} files of it or of its patients left out"
        hidden = f", contamination={self.contamination:g}" if self.contamination else ""
        crossing = ", by image: patients cross splits" if self.by == "image" else ""
        labelled = ", patients of all classes train" if self.supervised else ""
        return f"{how}, val_fraction={self.val_fraction:g}, seed={self.seed}{hidden}{crossing}{labelled}"


def split_by_seed(cases: Sequence[Case], rule: SplitRule) -> dict[str, str]:
    """Draw the training and validation patients from those without any anomalous case; all other patients are test.

    Cases with an official split (`Case.split`) keep it: only validation patients are drawn from their training
    patients, and their anomalous training cases are left out. Cases without an official split are drawn.

    Args:
        cases: all cases of the data set.
        rule: the split rule.

    Returns:
        Split of every case id: "train", "val", "test", or "" for a case that is left out.

    Raises:
        UserError: no case is anomalous, no normal patient would be left for training or for the test, or there are to
            be folds of an official split, or more folds than patients to be judged in each.

    Examples:
        >>> cases = [Case(id=name, patient=name, image=Path(name), label=int(name == "e")) for name in "abcde"]
        >>> split = split_by_seed(cases, SplitRule(train_normals=3, val_fraction=0.3))
        >>> sorted(split.values()), split["e"]
        (['test', 'test', 'train', 'train', 'val'], 'test')
    """
    anomalous = {case.patient for case in cases if case.label == 1}
    if not anomalous:
        raise UserError("no case is anomalous, so detectors cannot be evaluated; check the labels")
    split: dict[str, str] = {}
    if free := [case for case in cases if not case.split]:
        split |= (_blocks if rule.blocks else _folds if rule.folds else _drawn)(free, rule, anomalous)
    if fixed := [case for case in cases if case.split]:
        refuse_folds(rule, "the data set has an official split")
        split |= _official(fixed, rule)
    return _contaminated(cases, rule, split)


def split_supervised(cases: Sequence[Case], rule: SplitRule, classes: Classes) -> dict[str, str]:
    """Assign the patients of all classes to train, val and test, such that each split has its share of each class.

    Of a class of two patients one is tested, of one of three one validates, too.

    Cases with an official split (`Case.split`) keep it: only validation patients are drawn from their training
    patients, unless the official split has some.

    Args:
        cases: all cases of the data set.
        rule: the split rule.
        classes: the classes to tell apart; cases of others may be left out, see `Classes.keeps`.

    Returns:
        Split of every case id: "train", "val", "test", or "" for a case that is left out.

    Raises:
        UserError: there are more folds than patients of a class, or no patient would be left for a split.

    Examples:
        >>> cases = [Case(id=name, patient=name, image=Path(name), label=int(name in "abcde")) for name in "abcdefghij"]
        >>> split = split_supervised(cases, SplitRule(supervised=True, val_fraction=0.25), Classes())
        >>> [sorted(split[name] for name in names) for names in ("abcde", "fghij")]
        [['test', 'train', 'train', 'train', 'val'], ['test', 'train', 'train', 'train', 'val']]
    """
    labels = Coded.of_cases(cases)
    kept = classes.keeps(labels)
    owners = np.array([case.split or "" for case in cases])
    split = np.full(len(cases), "", "U5")
    if (free := kept & (owners == "")).any():
        split[free] = _stratified(cases, labels, free, rule, classes)
    if (fixed := kept & (owners != "")).any():
        refuse_folds(rule, "the data set has an official split")
        split[fixed] = owners[fixed]
        if rule.val_fraction and not (split == "val").any():
            held_out = fixed & (owners == "train")
            split[held_out] = _with_validation(cases, labels, held_out, rule, stream(rule.seed, "split"))
    return dict(zip((case.id for case in cases), split.tolist(), strict=True))


def _stratified(
    cases: Sequence[Case], labels: Coded, chosen: np.ndarray, rule: SplitRule, classes: Classes
) -> np.ndarray:
    """Return the split of the chosen cases, drawn by patient."""
    patient, has, names = _patients(cases, labels, chosen)
    for name in classes.names:
        is_named = name in names and name != ANOMALOUS
        count = int((has[:, names.index(name)] if is_named else _diseased(has, names)).sum())
        if count < rule.folds:
            raise UserError(
                f"data.split.folds={rule.folds}: only {count} patients are of class {name!r}; use at most {count} folds"
            )
    rng = stream(rule.seed, "split")
    if rule.folds:
        tested = dealt(has, [1 / rule.folds] * rule.folds, rng) == rule.fold
    else:
        tested = dealt(has, [1 - rule.test_fraction, rule.test_fraction], rng) == 1
        _add_missing(tested, has, rng)
    if tested.all() or not tested.any():
        raise UserError(f"{len(has)} patients are too few for data.split.{_how(rule)}; change it")
    split, rest = np.full(int(chosen.sum()), "test", "U5"), chosen.copy()
    rest[chosen] = ~tested[patient]
    split[~tested[patient]] = _with_validation(cases, labels, rest, rule, rng)
    return split


def _with_validation(
    cases: Sequence[Case], labels: Coded, chosen: np.ndarray, rule: SplitRule, rng: np.random.Generator
) -> np.ndarray:
    """Return "train" or "val" for each of the chosen cases, drawn by patient.

    At least one normal patient validates, and one of each class that has two or more, anomalies being one, too.
    """
    patient, has, names = _patients(cases, labels, chosen)
    if not rule.val_fraction:
        return np.full(len(patient), "train", "U5")
    held_out = dealt(has, [1 - rule.val_fraction, rule.val_fraction], rng) == 1
    _add_missing(held_out, np.column_stack([has, _diseased(has, names)]), rng)
    normal = has[:, names.index(NORMAL)] if NORMAL in names else np.zeros(len(has), bool)
    common = normal if normal.any() else has[:, int(has.sum(0).argmax())]
    if held_out.all() or not (held_out & common).any():
        raise UserError(
            f"{len(has)} patients train, and none can be spared for validation; set data.split.val_fraction=0"
        )
    return np.where(held_out[patient], "val", "train")


def _patients(cases: Sequence[Case], labels: Coded, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the number of each chosen case's patient, the classes of each patient, bool [P, K], and their names."""
    rows = np.flatnonzero(chosen)
    _, patient = np.unique(np.array([cases[row].patient for row in rows.tolist()]), return_inverse=True)
    names, of_case = Coded(labels.distinct, labels.code[rows]).strata()
    has = np.zeros((patient.max(initial=-1) + 1, len(names)), bool)
    for column in range(len(names)):
        has[patient[of_case[:, column]], column] = True
    return patient, has, names


def _add_missing(chosen: np.ndarray, has: np.ndarray, rng: np.random.Generator) -> None:
    """Choose, in place, one patient of each class of which none is chosen yet, unless it is the last of a class.

    Args:
        chosen: which patients are chosen, bool [P].
        has: which classes each patient has, bool [P, K].
        rng: determines who is chosen.
    """
    for of_class in has.T:
        last = (has & ((has & ~chosen[:, None]).sum(0) == 1)).any(1)
        spare = np.flatnonzero(of_class & ~last)
        if not (chosen & of_class).any() and len(spare):
            chosen[rng.choice(spare)] = True


def _diseased(has: np.ndarray, names: list[str]) -> np.ndarray:
    return np.asarray(has[:, [name != NORMAL for name in names]].any(1))


def _how(rule: SplitRule) -> str:
    return f"folds={rule.folds}" if rule.folds else f"test_fraction={rule.test_fraction:g}"


def _drawn(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> dict[str, str]:
    normal = _eligible(cases, rule, anomalous)
    count = round(rule.train_normals if rule.train_normals >= 1 else rule.train_normals * len(normal))
    held_out = _held_out(rule, count)
    if not held_out < count < len(normal):
        raise UserError(
            f"data.split.train_normals={rule.train_normals:g} with data.split.val_fraction={rule.val_fraction:g} "
            f"cannot be met by {len(normal)} normal patients: at least one must train and one be left for the test; "
            "change one of the two"
        )
    drawn = stream(rule.seed, "split").permutation(len(normal))[:count]
    split = {normal[i]: "train" for i in drawn} | {normal[i]: "val" for i in drawn[count - held_out :]}
    return {case.id: split.get(case.patient, "test") for case in cases}


def _official(cases: Sequence[Case], rule: SplitRule) -> dict[str, str]:
    """Return the official split of each case; validation patients are drawn if the official split has none."""
    split = {case.id: case.split or "" for case in cases}
    if not rule.within:
        split |= {case.id: "" for case in cases if case.split != "test" and case.label == 1}
    names = set(split.values())
    if "train" in names and "val" not in names and rule.val_fraction:
        normal = sorted({case.patient for case in cases if split[case.id] == "train"})
        held_out = _held_out(rule, len(normal))
        if not held_out < len(normal):
            raise UserError(
                f"only {len(normal)} normal patients train, none can be spared for validation; "
                "set data.split.val_fraction=0"
            )
        order = stream(rule.seed, "split").permutation(len(normal))[len(normal) - held_out :]
        out = {normal[i] for i in order}
        split |= {case.id: "val" for case in cases if case.patient in out and split[case.id] == "train"}
    return split


def _folds(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> dict[str, str]:
    """Assign patients to folds, stratified by class; anomalous patients outside the test fold are left out."""
    classes: dict[str, set[str]] = {}
    for case in cases:
        classes.setdefault(case.patient, set()).add(f"{case.label}{case.class_name}")
    rng = stream(rule.seed, "split")
    names = sorted(classes)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    by_class = sorted(shuffled, key=lambda patient: sorted(classes[patient]))  # stable: random order within a class
    fold = {patient: i % rule.folds for i, patient in enumerate(by_class)}
    normal = [p for p in shuffled if fold[p] != rule.fold and (rule.within or p not in anomalous)]
    held_out = _held_out(rule, len(normal))
    if not held_out < len(normal) or rule.fold not in fold.values():
        raise UserError(
            f"data.split.folds={rule.folds}: {len(names)} patients are too few for so many folds; use fewer folds"
        )
    judged = {"anomalous": anomalous.intersection(names)}
    if not rule.within:  # with labels per patch, anomalous patients have normal patches as well
        judged["normal"] = {case.patient for case in cases if case.label == 0}
    for name, patients in judged.items():
        if len({fold[patient] for patient in patients}) < rule.folds:
            raise UserError(
                f"data.split.folds={rule.folds}: {len(patients)} {name} patients are too few for one in each fold; use "
                "fewer folds, or 0 for a single split (those of a study in its file)"
            )
    split = dict.fromkeys(normal, "train") | dict.fromkeys(normal[len(normal) - held_out :], "val")
    return {case.id: "test" if fold[case.patient] == rule.fold else split.get(case.patient, "") for case in cases}


def _blocks(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> dict[str, str]:
    """Judge a block of normals that follow each other, and all anomalous cases; nothing close to the block is used.

    The normals are cut into `rule.folds` blocks, or as many as make a block of those that `rule.train_normals` spares,
    and the one of the fold, or of the seed modulo their number, is judged. The first normals behind it validate, those
    behind the last block being the first ones again, and the others train. Left out are normals at most MARGIN places
    from a judged one, or of its patient; and of those that would train, the ones that are so close to a validation
    normal.
    """
    normal = [case for case in cases if case.label == 0]
    count = round(rule.train_normals if rule.train_normals >= 1 else rule.train_normals * len(normal))
    number = rule.folds or (round(len(normal) / (len(normal) - count)) if 0 < count < len(normal) else 1)
    block = rule.fold if rule.folds else rule.seed % number
    judged = np.array_split(np.arange(len(normal)), number)[block].tolist()

    def apart(places: Sequence[int], chosen: Sequence[int]) -> list[int]:
        near = {place + step for place in chosen for step in range(-MARGIN, MARGIN + 1)}
        patients = {normal[place].patient for place in chosen}
        return [place for place in places if place not in near and normal[place].patient not in patients]

    behind = [] if not judged else [*range(judged[-1] + 1, len(normal)), *range(judged[0])]
    free = [place for place in apart(behind, judged) if normal[place].patient not in anomalous]  # who are tested
    val = free[: _held_out(rule, len(free))]
    train = apart(free[len(val) :], val)
    if number < 2 or not train or not judged:
        raise UserError(
            f"{len(normal)} normals cannot be cut into blocks by data.split.{_how_many(rule)}: at least two blocks are "
            f"needed, and normals that are more than {MARGIN} files from the judged ones and none of their patients; "
            "change it"
        )
    names = {
        normal[place].id: name
        for name, places in (("train", train), ("val", val), ("test", judged))
        for place in places
    }
    return {case.id: "test" if case.label else names.get(case.id, "") for case in cases}


def _how_many(rule: SplitRule) -> str:
    return f"folds={rule.folds}" if rule.folds else f"train_normals={rule.train_normals:g}"


def _contaminated(cases: Sequence[Case], rule: SplitRule, split: dict[str, str]) -> dict[str, str]:
    """Move anomalous patients to train until their cases reach the contamination.

    They are those that the split leaves out (of other folds, of an official training split), then tested ones: every
    fold judges its own anomalies, whatever hides among the normals. With labels per patch (`rule.within`),
    `rows_of_splits` adds anomalous rows instead.
    """
    if not rule.contamination or rule.within:
        return split
    training = sum(name == "train" for name in split.values())
    wanted = round(rule.contamination / (1 - rule.contamination) * training)
    size: dict[str, int] = {}
    for case in cases:
        if case.label == 1:
            size[case.patient] = size.get(case.patient, 0) + 1
    names = sorted(size)
    judged = {case.patient for case in cases if split[case.id] == "test"}
    drawn = [names[i] for i in stream(rule.seed, "contaminated patients").permutation(len(names))]
    shuffled = sorted(drawn, key=lambda patient: patient in judged)  # stable
    before = np.cumsum([0, *(size[patient] for patient in shuffled[:-1])])
    moved = {patient for patient, hidden in zip(shuffled, before, strict=True) if hidden < wanted}
    if len(moved) == len(names) or not wanted:
        raise UserError(
            f"data.split.contamination={rule.contamination:g} means {wanted} of {sum(size.values())} anomalous cases: "
            "at least one must train and one be left for the test; change it"
        )
    theirs = [case for case in cases if case.patient in moved]
    left_out = {case.id: "" for case in theirs if split[case.id] == "test"}  # normals of who trains are not judged
    return split | left_out | {case.id: "train" for case in theirs if case.label == 1}


def _eligible(cases: Sequence[Case], rule: SplitRule, anomalous: set[str]) -> list[str]:
    """Return the patients who may train."""
    patients = {case.patient for case in cases}
    return sorted(patients if rule.within else patients - anomalous)


def _held_out(rule: SplitRule, count: int) -> int:
    """Return how many of `count` patients are used for validation."""
    return max(1, round(rule.val_fraction * count)) if rule.val_fraction > 0 else 0


def split_by_file(cases: Sequence[Case], path: Path, within: bool = False) -> dict[str, str]:
    r"""Read the split from a CSV file with the columns id, split (train, val, test or nothing) and one row per case.

    A case whose split is empty is left out: it neither trains nor is it judged.

    Args:
        cases: all cases of the data set.
        path: the CSV file.
        within: whether anomalous cases are allowed in train and val, because labels are per patch.

    Raises:
        UserError: the file is unreadable or lacks a column, an id is unknown, missing or repeated, a split is unknown,
            a patient is in two splits, or an anomalous case is in train or val.

    Examples:
        >>> import tempfile
        >>> cases = [Case(id=name, patient=name, image=Path(name), label=int(name == "b")) for name in "ab"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "split.csv"
        ...     _ = path.write_text("id,split\na,train\nb,test\n")
        ...     split_by_file(cases, path)
        {'a': 'train', 'b': 'test'}
    """
    splits = _read(path)
    known = {case.id for case in cases}
    for fault, ids in (("unknown ids", splits.keys() - known), ("no row for the ids", known - splits.keys())):
        if ids:
            raise UserError(f"{path}: {fault} {_listing(ids)}; ids look like {min(known)}, correct the file")
    misplaced = [case.id for case in cases if case.label == 1 and splits[case.id] in ("train", "val") and not within]
    if misplaced:
        raise UserError(
            f"{path}: anomalous cases in train or val, which take normals only: {_listing(misplaced)}; "
            "move them to test"
        )
    refuse_divided(path, splits, {case.id: case.patient for case in cases})
    return splits


def refuse_divided(source: Path, splits: Mapping[str, str], patients: Mapping[str, str]) -> None:
    """Check that no patient is in two splits.

    Args:
        source: the file or folder that says who is in which, for the message.
        splits: the split of every case id; cases with an empty one are in none.
        patients: the patient of every case id.

    Raises:
        UserError: a patient is.

    Examples:
        >>> refuse_divided(Path("labels.csv"), {"a": "train", "b": "test"}, {"a": "p1", "b": "p1"})
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: labels.csv: a patient is in two splits, cases a, b; keep them in one split, ...
    """
    splits_of = defaultdict(set)
    for id, split in splits.items():
        if split:
            splits_of[patients[id]].add(split)
    divided = [id for id, split in splits.items() if split and len(splits_of[patients[id]]) > 1]
    if divided:
        raise UserError(
            f"{source}: a patient is in two splits, cases {_listing(divided)}; keep them in one split, leave one out "
            "(in a data.split.file by an empty split), or say data.split.by=image, which every page then mentions"
        )


def refuse_folds(rule: Split, what: str) -> None:
    """Raise if a split that is given is to be cut into folds, because all of them would be that split.

    Args:
        rule: the split rule.
        what: what gives the split, for the message.

    Raises:
        UserError: there are to be folds.

    Examples:
        >>> refuse_folds(Split(folds=4), "the list has a split")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: data.split.folds=4: the list has a split, which is kept, so that all folds ...
    """
    if rule.folds:
        raise UserError(
            f"data.split.folds={rule.folds}: {what}, which is kept, so that all folds would be the same; set folds to "
            "0 (those of a study in its file), or take a split of your own out"
        )


def _read(path: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    try:
        with open_table(path, "utf-8-sig") as file:
            lines, delimiter = as_csv(file)
            rows = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
            if not {"id", "split"} <= set(rows.fieldnames or []):
                raise UserError(f"{path}: a split file needs the columns id,split; it has {rows.fieldnames}")
            for row in rows:
                if row["split"] not in (*SPLITS, ""):
                    raise UserError(
                        f"{path}, line {rows.line_num}: split is {row['split']!r}, not one of {SPLITS} or empty, which "
                        "leaves a case out"
                    )
                id = restored(row["id"])  # as the manifest and scores.csv have it
                if id in splits:
                    raise UserError(f"{path}, line {rows.line_num}: id {id} appears twice; keep one row")
                splits[id] = row["split"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the split file (data.split.file) cannot be read ({error})") from error
    return splits


def _listing(ids: set[str] | Sequence[str]) -> str:
    """Return at most five ids and the number of the rest."""
    names = sorted(ids)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
