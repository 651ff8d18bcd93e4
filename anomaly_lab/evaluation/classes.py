"""The classes of a run with labels: classes.csv, one row per case, and what metrics.json says of them.

Validation cases set the threshold of each class and the temperature; test labels only measure the result.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.evaluation.protocol import CONFIDENCE, interval_of, without_nan
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.tables import restored, to_csv
from anomaly_lab.metrics import calibration, joint, statistics, thresholds
from anomaly_lab.metrics.classification import (
    MEANS,
    PER_CLASS,
    Calls,
    Judged,
    Measures,
    Targets,
    confusion,
    most_probable,
    unweighted,
)
from anomaly_lab.metrics.joint import FEWEST, Sample
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.types import UserError

Task = Literal["multiclass", "multilabel"]
FILE = "classes.csv"
TARGET, PROBABILITY = "target:", "probability:"  # begin the names of the columns of a class
EVEN = 0.5  # threshold of a class without a positive validation case
_WORDS = {1: "1", 0: "0", -1: ""}


class Supervision(NamedTuple):
    """What a detector was told of the classes.

    Attributes:
        task: whether a case has exactly one class or any number of them.
        training: number of training cases that are known to have each class.
    """

    task: Task
    training: Mapping[str, int]

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude each other."""
        return self.task == "multiclass"


@dataclass(frozen=True)
class ClassTable:
    """What is known and what was predicted of the classes of each case, one row per case.

    Attributes:
        id: unique case ids.
        patient: patient of each case.
        split: "val" or "test".
        classes: names of the K classes.
        target: int8 [N, K], 1 yes, 0 no, -1 unknown.
        probability: float64 [N, K] in [0, 1], as the detector gave them.

    Raises:
        UserError: an id occurs twice, or a probability is not one.

    Examples:
        >>> target, probability = np.array([[1, -1]], np.int8), np.array([[0.25, 0.5]])
        >>> print(ClassTable(["a"], ["p"], ["test"], ("gun", "knife"), target, probability).to_csv(), end="")
        id,patient,split,target:gun,target:knife,probability:gun,probability:knife
        a,p,test,1,,0.25,0.5
    """

    id: list[str]
    patient: list[str]
    split: list[str]
    classes: tuple[str, ...]
    target: Targets
    probability: Floats

    def __post_init__(self) -> None:
        """Validate the rows: unique ids, and numbers in [0, 1]."""
        for id, times in Counter(self.id).most_common(1):
            if times > 1:
                raise UserError(f"classes: id {id!r} occurs {times} times, but a case must have one row; remove others")
        for row, column in np.argwhere(~((self.probability >= 0) & (self.probability <= 1)))[:1]:  # not nan, too
            raise UserError(
                f"classes: the probability of {self.classes[column]} for {self.id[row]!r} is "
                f"{self.probability[row, column]}, not a number from 0 to 1; the training may have diverged: check "
                "metrics.jsonl"
            )

    @classmethod
    def read(cls, path: Path) -> ClassTable:
        """Read a classes.csv.

        Raises:
            UserError: the file is missing or a row is invalid; the message names the file and the line.
        """
        remedy = "evaluate the run to write it again"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                head, rows = list(reader.fieldnames or []), list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read as classes; {remedy}") from error
        classes = tuple(name.removeprefix(TARGET) for name in head if name.startswith(TARGET))
        if head != _head(classes) or not classes or not rows:
            raise UserError(f"{path}: not a table of classes; {remedy}")
        target = np.empty((len(rows), len(classes)), np.int8)
        probability = np.empty((len(rows), len(classes)))
        known = {word: value for value, word in _WORDS.items()}
        for line, row in enumerate(rows):
            try:
                target[line] = [known[row[TARGET + name]] for name in classes]
                probability[line] = [float(row[PROBABILITY + name]) for name in classes]
                in_split = row["split"] in ("val", "test") and None not in row
            except (KeyError, TypeError, ValueError):
                in_split = False
            if not in_split:
                raise UserError(f"{path}, line {line + 2}: not a valid row of classes; {remedy}")
        id, patient, split = ([restored(row[name] or "") for row in rows] for name in ("id", "patient", "split"))
        try:
            return cls(id, patient, split, classes, target, probability)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def to_csv(self) -> str:
        """Return the text of classes.csv; its probabilities read back bit for bit."""
        columns = [self.id, self.patient, self.split]
        columns += [[_WORDS[value] for value in column] for column in self.target.T.tolist()]
        columns += [[repr(value) for value in column] for column in self.probability.T.tolist()]
        return to_csv([_head(self.classes), *zip(*columns, strict=True)])

    def by_case(self, case: NDArray[Any], label: Labels, exclusive: bool) -> ClassTable:
        """Combine the rows of patches into one per case, sorted by its id.

        Args:
            case: [N], the case of each patch; all patches of a case belong to one split.
            label: [N], 0 normal, 1 anomalous.
            exclusive: whether classes exclude each other.

        Returns:
            The M cases: the mean of their patches' probabilities, and what is known of their first anomalous patch, or
            first patch; of classes that do not exclude each other, a case has all that its patches have.
        """
        ids, number = np.unique(case, return_inverse=True)
        first = np.lexsort((-label, number))[np.searchsorted(np.sort(number), np.arange(len(ids)))]
        total = np.zeros((len(ids), len(self.classes)))
        np.add.at(total, number, self.probability)
        mean = np.clip(total / np.bincount(number)[:, None], 0, 1)
        target = self.target[first]
        if not exclusive:
            np.maximum.at(target, number, np.where(self.target == 1, 1, -1).astype(np.int8))
        patient, split = ([values[i] for i in first] for values in (self.patient, self.split))
        return ClassTable([str(id) for id in ids], patient, split, self.classes, target, mean)

    def of(self, split: str) -> NDArray[np.bool_]:
        """Return a mask of the cases of a split, [N]."""
        member: NDArray[np.bool_] = np.array(self.split) == split
        return member

    def restricted(self, cases: NDArray[np.bool_]) -> ClassTable:
        """Return the rows of a mask [N]."""
        rows = np.flatnonzero(cases)
        id, patient, split = ([values[i] for i in rows] for values in (self.id, self.patient, self.split))
        target, probability = self.target[rows], self.probability[rows]
        return replace(self, id=id, patient=patient, split=split, target=target, probability=probability)


def evaluate_classes(
    table: ClassTable,
    scores: Scores,
    supervision: Supervision,
    threshold: float | None,
    replicates: int = 2000,
) -> dict[str, Any]:
    """Compute what metrics.json says of the classes; undefined numbers are None.

    Args:
        table: the classes of all validation and test cases.
        scores: the anomaly scores of the same cases, in the same order.
        supervision: what the detector was told.
        threshold: of the anomaly score; None without one.
        replicates: number of bootstrap replicates; patients are drawn, in the strata of the anomaly scores.

    Returns:
        JSON-ready tables: task, counts, remarks, temperature, each class, means, accuracy and the trivial rule beside
        it, confusion matrix, anomalous against normal, calibration.

    Examples:
        >>> target = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.int8)
        >>> probability = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.6, 0.4]])
        >>> names, split = list("abcd"), ["val", "val", "test", "test"]
        >>> table = ClassTable(names, names, split, ("normal", "gun"), target, probability)
        >>> scores = Scores(names, names, split, target[:, 1].astype(np.int64), 1 - probability[:, 0])
        >>> told = Supervision("multiclass", {"normal": 3, "gun": 1})
        >>> metrics = evaluate_classes(table, scores, told, threshold=0.5, replicates=9)
        >>> metrics["accuracy"]["value"], metrics["majority"], metrics["confusion"]
        (0.5, {'class': 'normal', 'accuracy': 0.5}, [[1, 0], [1, 0]])
    """
    exclusive, training = supervision.exclusive, supervision.training
    val, test = table.restricted(scores.of("val")), table.restricted(scores.of("test"))
    cuts = {} if exclusive else {name: _cut(val, k) for k, name in enumerate(table.classes)}
    called = called_classes(test.probability, list(cuts.values()))
    measures = Measures(Judged(test.target, test.probability, called, exclusive))
    figures = measures(np.ones((len(test.id), 1)))
    label = scores.label[scores.of("test")]
    calls = _anomalous(scores, threshold)
    blocks, drawn = [], []
    for weight in statistics.draw_weights(label, test.patient, replicates, seed=0):
        blocks.append(measures(weight))
        drawn.append({rule: _against_normal(label, call, weight) for rule, (_, call) in calls.items()})
    replicated = {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in figures}
    positive, negative = (_patients(test, value) for value in (1, 0))
    fewest = {  # patients that a figure of each class rests on
        figure: [min(pair) if figure in PER_CLASS[:3] else pair[0] for pair in zip(positive, negative, strict=True)]
        for figure in PER_CLASS
    }
    patients = joint.count_patients(label, np.array(test.patient))
    of_all = len(np.unique(test.patient))
    content: dict[str, Any] = {
        "task": supervision.task,
        "names": list(table.classes),
        "counts": {split: _counts(part) for split, part in (("val", val), ("test", test))},
        "training": dict(training),
        "remarks": _remarks(table.classes, val, test, training, positive),
        "each": {
            name: {
                figure: _auroc(test, k)
                if figure == "auroc"
                else _estimate(figures[figure][k], replicated[figure][k], fewest[figure][k])
                for figure in PER_CLASS
            }
            | {"prevalence": _share(test.target[:, k])}
            | ({"threshold": cuts[name]} if cuts else {})
            for k, name in enumerate(table.classes)
        },
        **{
            name: _estimate(values, replicated[name], _fewest_of(name, measures, fewest) if name in MEANS else of_all)
            for name, values in figures.items()
            if name not in PER_CLASS
        },
        "majority": _majority(test, training) if exclusive else None,
        "confusion": confusion(test.target, called).tolist() if exclusive else None,
        "anomalous": {
            rule: {"threshold": cut}
            | {
                name: _estimate(value, np.concatenate([block[rule][name] for block in drawn]), min(patients))
                for name, value in _against_normal(label, call, np.ones((len(label), 1))).items()
            }
            for rule, (cut, call) in calls.items()
        },
        "calibration": _calibration(val, test, exclusive),
    }
    cleaned: dict[str, Any] = without_nan(content)
    return cleaned


def _head(classes: Sequence[str]) -> list[str]:
    return ["id", "patient", "split", *(f"{begin}{name}" for begin in (TARGET, PROBABILITY) for name in classes)]


def _cut(val: ClassTable, k: int) -> float:
    """Return the threshold of a class with the highest F1 on the validation cases; EVEN if none of them has it."""
    known = val.target[:, k] >= 0
    label = (val.target[known, k] == 1).astype(np.int64)
    return thresholds.best_f1(label, val.probability[known, k])[1] if label.any() else EVEN


def called_classes(probability: Floats, cuts: Sequence[float]) -> Calls:
    """Return the classes that cases are called, [N, K]: those above their thresholds, or the most probable one.

    Args:
        probability: [N, K].
        cuts: threshold of each class; empty if classes exclude each other.

    Examples:
        >>> [called_classes(np.array([[0.2, 0.8]]), cuts).tolist() for cuts in ([0.1, 0.5], [])]
        [[[True, True]], [[False, True]]]
    """
    called: Calls = probability > np.array(cuts) if cuts else most_probable(probability)
    return called


def _anomalous(scores: Scores, threshold: float | None) -> dict[str, tuple[float, NDArray[np.bool_]]]:
    """Return by rule a threshold of the anomaly score, and which test cases are called anomalous at it.

    The threshold of the run is set by normals. With labels there is another: that of the highest F1 on the validation
    cases.
    """
    val, test = scores.of("val"), scores.score[scores.of("test")]
    cuts = {"run": math.nan if threshold is None else threshold}
    cuts["validation"] = thresholds.best_f1(scores.label[val], scores.score[val])[1]
    return {rule: (cut, test > cut) for rule, cut in cuts.items() if not math.isnan(cut)}


def _against_normal(label: Labels, called: NDArray[np.bool_], weight: NDArray[Any]) -> dict[str, Floats]:
    """Return precision, recall and F1 as unweighted means over anomalous and normal, [R] each."""
    anomalous = label == 1
    outcomes = (called & anomalous, called & ~anomalous, ~called & ~anomalous, ~called & anomalous)
    return unweighted(*(outcome.astype(np.float64) @ weight for outcome in outcomes))


def _estimate(value: Floats, replicated: Floats, patients: int) -> dict[str, float]:
    """Return a figure [1] with its interval over the replicates that have it; `patients` is how many it rests on."""
    low, high = interval_of(value.item(), replicated, patients, patients)
    return {"value": float(value.item()), "low": low, "high": high}


def _auroc(test: ClassTable, k: int) -> dict[str, float]:
    """Return the AUROC of a class with its closed interval."""
    known = test.target[:, k] >= 0
    label = (test.target[known, k] == 1).astype(np.int64)
    found = joint.auroc([Sample(label, test.probability[known, k], np.array(test.patient)[known])], CONFIDENCE)
    return {"value": found.value, "low": found.low, "high": found.high}


def _fewest_of(mean: str, measures: Measures, fewest: Mapping[str, Sequence[int]]) -> int:
    """Return the fewest patients that a class in a mean over classes rests on; 0 if there is no class in it."""
    figure = MEANS[mean]
    counted = measures.ranked if figure in PER_CLASS[:3] else measures.present
    return min((fewest[figure][k] for k in np.flatnonzero(counted)), default=0)


def _patients(part: ClassTable, value: int) -> list[int]:
    """Return for each class the number of patients with a case that has it (1) or has it not (0)."""
    patient = np.array(part.patient)
    return [len(np.unique(patient[part.target[:, k] == value])) for k in range(len(part.classes))]


def _counts(part: ClassTable) -> dict[str, dict[str, int]]:
    words = {"yes": 1, "no": 0, "unknown": -1}
    return {
        name: {word: int((part.target[:, k] == value).sum()) for word, value in words.items()}
        for k, name in enumerate(part.classes)
    }


def _share(target: NDArray[np.int8]) -> float:
    known = target[target >= 0]
    return float((known == 1).mean()) if len(known) else math.nan


def _majority(test: ClassTable, training: Mapping[str, int]) -> dict[str, Any]:
    """Return the class that most training cases have, and the accuracy of always naming it."""
    largest = max(test.classes, key=lambda name: training.get(name, 0))
    return {"class": largest, "accuracy": _share(test.target[:, test.classes.index(largest)])}


def _remarks(
    classes: Sequence[str], val: ClassTable, test: ClassTable, training: Mapping[str, int], positive: Sequence[int]
) -> list[str]:
    """Return a sentence for every class of which something cannot be measured, or should not have been expected."""
    remarks = []
    for k, name in enumerate(classes):
        target = test.target[:, k]
        if not training.get(name):
            remarks.append(f"{name}: no training case has it, so that nothing of it can have been learnt.")
        if not (target >= 0).any():
            remarks.append(f"{name}: whether a test case has it is unknown for all of them; it is left out everywhere.")
        elif not (target == 1).any():
            remarks.append(f"{name}: no test case has it; its average precision is undefined and no part of a mean.")
        elif not (target == 0).any():
            remarks.append(f"{name}: every test case has it; its average precision is undefined and no part of a mean.")
        elif positive[k] < FEWEST:
            of = "one patient" if positive[k] == 1 else f"{positive[k]} patients"
            remarks.append(
                f"{name}: its test cases are of {of}, and an interval needs {FEWEST}; nor have means over classes any."
            )
        if not (val.target[:, k] == 1).any():
            remarks.append(f"{name}: no validation case has it, so validation says nothing of its probabilities.")
    return remarks


def _calibration(val: ClassTable, test: ClassTable, exclusive: bool) -> dict[str, Any]:
    """Return the temperature of the validation cases, and how well test cases are calibrated before and after it."""
    fitted = calibration.fit_temperature(val.target, val.probability, exclusive)
    temperature = 1.0 if math.isnan(fitted) else fitted
    states = {"before": test.probability, "after": calibration.tempered(test.probability, temperature, exclusive)}
    return {
        "temperature": temperature,
        "cases": len(val.id) if not math.isnan(fitted) else 0,
        **{state: _calibrated(test.target, probability, exclusive) for state, probability in states.items()},
    }


def _calibrated(target: Targets, probability: Floats, exclusive: bool) -> dict[str, Any]:
    curve = calibration.reliability(*calibration.claims(target, probability, exclusive))
    judged = Judged(target, probability, most_probable(probability), exclusive)
    return {
        "error": curve.error,
        "brier": judged.measure()["brier"].item(),
        "log_loss": calibration.log_loss(target, probability, exclusive),
        "curve": [
            {"claims": claims, "confidence": confidence, "share": share}
            for claims, confidence, share in zip(*(column.tolist() for column in curve), strict=True)
        ],
    }
