"""scores.csv: one row per case, with raw scores that survive writing and reading bit for bit."""

import csv
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.evaluation.stitching import Rule, case_scores
from anomaly_lab.experiment.tables import open_table, restored, to_csv
from anomaly_lab.metrics import thresholds
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.types import UserError

COLUMNS = ("id", "patient", "split", "label", "score", "p_value", "pred_label")
TERM = "score."  # begins the name of a component's column


@dataclass(frozen=True)
class Scores:
    """Scores of all evaluated cases, one row per case.

    Attributes:
        id: unique case ids.
        patient: patient of each case; the bootstrap draws patients.
        split: "val" (validation normals), "test", or "crossfit" (training normals, scored by fits without them).
        label: [N], 0 normal, 1 anomalous.
        score: the detector's raw scores, [N], finite; higher = more anomalous.
        baselines: name -> scores of a baseline, [N], finite.
        components: name -> a term of the detector's score, [N], finite.
        probabilities: whether `score` is a probability, so that no threshold lies above 1.

    Raises:
        UserError: an id occurs twice, or a score is not finite.

    Examples:
        >>> scores = Scores(["a", "b"], ["p1", "p2"], ["val", "test"], np.array([0, 1]), np.array([0.25, 0.5]))
        >>> print(scores.to_csv(threshold=0.3), end="")
        id,patient,split,label,score,p_value,pred_label
        a,p1,val,0,0.25,1.0,0
        b,p2,test,1,0.5,0.5,1
    """

    id: list[str]
    patient: list[str]
    split: list[str]
    label: Labels
    score: Floats
    baselines: dict[str, Floats] = field(default_factory=dict)
    components: dict[str, Floats] = field(default_factory=dict)
    probabilities: bool = False

    def __post_init__(self) -> None:
        """Validate the rows: unique ids, finite scores."""
        for id, times in Counter(self.id).most_common(1):
            if times > 1:
                raise UserError(
                    f"scores: id {id!r} occurs {times} times, but a case must have one row; remove the others"
                )
        for name, values in {"score": self.score, **self.baselines, **self.components}.items():
            for row in np.flatnonzero(~np.isfinite(values))[:1]:
                raise UserError(
                    f"scores: the {name} of {self.id[row]!r} is {values[row]}, not a finite number; the training may "
                    "have diverged: check metrics.jsonl"
                )

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Read a scores.csv; columns beyond the known ones are baselines, or components if they begin with "score.".

        Raises:
            UserError: the file is missing or a row is invalid; the message names the file and the line.
        """
        try:
            with open_table(path) as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read as scores; evaluate the run to write it again") from error
        missing = [column for column in COLUMNS[:5] if not rows or column not in rows[0]]
        if missing:
            raise UserError(f"{path}: no rows with {', '.join(missing)}; evaluate the run to write it again")
        numbers = [_numbers(row, f"{path}, line {line}") for line, row in enumerate(rows, 2)]
        columns = {name: np.array([row[name] for row in numbers]) for name in numbers[0]}
        label, score = columns.pop("label").astype(np.int64), columns.pop("score")
        id, patient, split = ([restored(row[name] or "") for row in rows] for name in ("id", "patient", "split"))
        terms = {name.removeprefix(TERM): columns.pop(name) for name in [*columns] if name.startswith(TERM)}
        return cls(id, patient, split, label, score, columns, terms)

    def to_csv(self, threshold: float | None = None) -> str:
        """Return the text of scores.csv; its scores read back bit for bit.

        Args:
            threshold: cases with a higher score get pred_label 1; None leaves the column empty. The column p_value is
                empty without validation normals.
        """
        columns = {name: getattr(self, name) for name in COLUMNS[:3]}
        columns |= {
            "label": self.label.tolist(),
            "score": _texts(self.score),
            "p_value": _texts(self.p_values()),
        }
        undecided = [""] * len(self.id)
        columns["pred_label"] = undecided if threshold is None else np.where(self.score > threshold, "1", "0").tolist()
        columns |= {name: _texts(values) for name, values in self.baselines.items()}
        columns |= {TERM + name: _texts(values) for name, values in self.components.items()}
        return to_csv([columns, *zip(*columns.values(), strict=True)])

    def by_case(self, case: NDArray[Any], rule: Rule, k: int) -> tuple["Scores", NDArray[np.intp]]:
        """Combine the scores of patches into one score per case, for the detector, its terms and each baseline.

        Args:
            case: [N], the case of each patch; all patches of a case belong to one split.
            rule: how to combine, see `stitching.case_scores`.
            k: patches of the rule "top_k".

        Returns:
            The M cases, sorted by id, each anomalous if one of its patches is; and for each case the index of its
            patch with the highest score, [M].
        """
        ids, score = case_scores(self.score, case, rule, k)
        number = np.searchsorted(ids, case)
        order = np.lexsort((self.score, number))
        highest = order[np.searchsorted(number[order], np.arange(len(ids)), side="right") - 1]
        label = np.zeros(len(ids), np.int64)
        np.maximum.at(label, number, self.label)
        baselines, components = (
            {name: case_scores(values, case, rule, k)[1] for name, values in columns.items()}
            for columns in (self.baselines, self.components)
        )
        patient, split = (np.array(values)[highest].tolist() for values in (self.patient, self.split))
        names = [str(id) for id in ids]
        return Scores(names, patient, split, label, score, baselines, components, self.probabilities), highest

    def p_values(self) -> Floats:
        """Return each case's conformal p-value against the validation normals, [N]; NaN without validation normals.

        A validation normal is compared with the other validation normals.
        """
        n = int(self.normals.sum())
        if n == 0:
            return np.full(len(self.id), np.nan)
        p = thresholds.conformal_p_values(self.score, self.score[self.normals])
        return np.where(self.normals, (p * (n + 1) - 1) / n, p)  # a validation normal counts itself among the n

    @property
    def normals(self) -> NDArray[np.bool_]:
        """Mask of the normals that may set the threshold, [N]: of validation, and cross-fitted; uses no test label."""
        normal: NDArray[np.bool_] = self.label == 0
        return ~self.of("test") & normal

    def joined(self, other: "Scores") -> "Scores":
        """Return the rows of both, which have the same columns."""
        id, patient, split = (getattr(self, name) + getattr(other, name) for name in ("id", "patient", "split"))
        label, score = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("label", "score"))
        baselines, components = (
            {name: np.concatenate([mine[name], theirs[name]]) for name in mine}
            for mine, theirs in ((self.baselines, other.baselines), (self.components, other.components))
        )
        return Scores(id, patient, split, label, score, baselines, components, self.probabilities)

    def of(self, split: str) -> NDArray[np.bool_]:
        """Return a mask of the cases of a split, [N]."""
        member: NDArray[np.bool_] = np.array(self.split) == split
        return member


def _texts(values: Floats) -> list[str]:
    """Format numbers as the shortest text that reads back to the same bits; NaN becomes empty text."""
    return ["" if math.isnan(value) else repr(value) for value in values.tolist()]


def _numbers(row: Mapping[str, str], where: str) -> dict[str, float]:
    """Return the numbers of a row: label, score and baselines."""
    if row["split"] not in ("val", "test", "crossfit") or row["label"] not in ("0", "1"):
        raise UserError(
            f"{where}: split must be val, test or crossfit and label 0 or 1, not {row['split']!r} and "
            f"{row['label']!r}; evaluate the run to write it again"
        )
    try:
        return {name: float(row[name]) for name in row if name in ("label", "score") or name not in COLUMNS}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a score is not a number; evaluate the run to write it again") from error
