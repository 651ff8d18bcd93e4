"""scores.csv: one row a case, raw scores that read back bit for bit."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.evaluation.stitching import Rule, case_scores
from anomaly_lab.metrics import thresholds
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.types import UserError

COLUMNS = ("id", "patient", "split", "label", "score", "p_value", "pred_label")


@dataclass(frozen=True)
class Scores:
    """One row a case: who it is, what it is and how anomalous it looks.

    Attributes:
        id: unique.
        patient: group key; the bootstrap draws patients.
        split: "val" (held-out normals) or "test".
        label: [N], 0 normal, 1 anomalous.
        score: [N], the detector's, raw, finite.
        baselines: name -> [N], the same from a method without training.

    Raises:
        UserError: an id comes twice, or a score is not finite.
    """

    id: list[str]
    patient: list[str]
    split: list[str]
    label: Labels
    score: Floats
    baselines: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what cannot be judged."""
        for id, times in Counter(self.id).most_common(1):
            if times > 1:
                raise UserError(f"scores: id {id!r} comes {times} times; every case is scored once")
        for name, values in {"score": self.score, **self.baselines}.items():
            for row in np.flatnonzero(~np.isfinite(values))[:1]:
                raise UserError(f"scores: the {name} of {self.id[row]!r} is {values[row]}; did the training diverge?")

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Reads a scores.csv; columns beyond the known ones are baselines.

        Raises:
            UserError: the file is missing or a row cannot be used; names the file and the row.
        """
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as scores; evaluate the run to write them") from error
        missing = [column for column in COLUMNS[:5] if not rows or column not in rows[0]]
        if missing:
            raise UserError(f"{path}: has no rows with {', '.join(missing)}; evaluate the run to write them")
        numbers = [_numbers(row, f"{path}, line {line}") for line, row in enumerate(rows, 2)]
        columns = {name: np.array([row[name] for row in numbers]) for name in numbers[0]}
        label, score = columns.pop("label").astype(np.int64), columns.pop("score")
        id, patient, split = ([row[name] for row in rows] for name in ("id", "patient", "split"))
        return cls(id, patient, split, label, score, columns)

    def to_csv(self, threshold: float | None = None) -> str:
        """The text of scores.csv; its scores read back bit for bit.

        p_value is empty without val normals, pred_label (score above `threshold`) without a threshold.
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
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *zip(*columns.values(), strict=True)])
        return text.getvalue()

    def by_case(self, case: NDArray[Any], rule: Rule, k: int) -> tuple["Scores", NDArray[np.intp]]:
        """One score a case, of its patches by a named rule; baselines by the same one.

        Args:
            case: [N], the case of each patch; all of its patches lie in one split.
            rule: see `stitching.case_scores`.
            k: see there.

        Returns:
            The cases, sorted by id, each anomalous if one of its patches is; where the highest patch of each is, [M].
        """
        ids, score = case_scores(self.score, case, rule, k)
        number = np.searchsorted(ids, case)
        order = np.lexsort((self.score, number))
        highest = order[np.searchsorted(number[order], np.arange(len(ids)), side="right") - 1]
        label = np.zeros(len(ids), np.int64)
        np.maximum.at(label, number, self.label)
        baselines = {name: case_scores(values, case, rule, k)[1] for name, values in self.baselines.items()}
        patient, split = (np.array(values)[highest].tolist() for values in (self.patient, self.split))
        return Scores([str(id) for id in ids], patient, split, label, score, baselines), highest

    def p_values(self) -> Floats:
        """Conformal p-value of each case, [N], a val normal's against the others; nan without val normals."""
        n = int(self.normals.sum())
        if n == 0:
            return np.full(len(self.id), np.nan)
        p = thresholds.conformal_p_values(self.score, self.score[self.normals])
        return np.where(self.normals, (p * (n + 1) - 1) / n, p)  # a val normal is itself among the n

    @property
    def normals(self) -> NDArray[np.bool_]:
        """The held-out normals, [N]: all that the threshold may see. No test label is asked."""
        normal: NDArray[np.bool_] = self.label == 0
        return self.of("val") & normal

    def of(self, split: str) -> NDArray[np.bool_]:
        """The cases of a split, [N]."""
        member: NDArray[np.bool_] = np.array(self.split) == split
        return member


def _texts(values: Floats) -> list[str]:
    """Numbers as the shortest text that reads back to the same bits; nan is left empty."""
    return ["" if math.isnan(value) else repr(value) for value in values.tolist()]


def _numbers(row: Mapping[str, str], where: str) -> dict[str, float]:
    """The numbers of a row: label, score and baselines."""
    if row["split"] not in ("val", "test") or row["label"] not in ("0", "1"):
        raise UserError(f"{where}: split must be val or test and label 0 or 1; evaluate the run to write it anew")
    try:
        return {name: float(row[name]) for name in row if name in ("label", "score") or name not in COLUMNS}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a score is not a number; evaluate the run to write it anew") from error
