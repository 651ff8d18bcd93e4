"""Which labels decide what: held-out normals draw the threshold, test labels only measure what came of it.

`Scores` is scores.csv, `judge` turns it into metrics.json; the floors go through the same rules as the
detector.
"""

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

from anomaly_lab.metrics import ranking, statistics, thresholds
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.metrics.thresholds import Threshold
from anomaly_lab.types import UserError

COLUMNS = ("id", "patient", "split", "label", "score", "p_value", "pred_label")
LEVEL = 0.95


@dataclass(frozen=True)
class Scores:
    """One row a case: who it is, what it is and how anomalous it looks.

    Attributes:
        id: unique.
        patient: group key; the bootstrap draws patients.
        split: "val" (held-out normals) or "test".
        label: [N], 0 normal, 1 anomalous.
        score: [N], the detector's, raw, finite.
        floors: name -> [N], the same from a method without training.

    Raises:
        UserError: an id comes twice, or a score is not finite.
    """

    id: list[str]
    patient: list[str]
    split: list[str]
    label: Labels
    score: Floats
    floors: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what cannot be judged."""
        for id, times in Counter(self.id).most_common(1):
            if times > 1:
                raise UserError(f"scores: id {id!r} comes {times} times; every case is scored once")
        for name, values in {"score": self.score, **self.floors}.items():
            for row in np.flatnonzero(~np.isfinite(values))[:1]:
                raise UserError(f"scores: the {name} of {self.id[row]!r} is {values[row]}; did the training diverge?")

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Reads a scores.csv; columns beyond the known ones are floors.

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

    def to_csv(self, quantile: float = 0.95) -> str:
        """The text of scores.csv; its scores read back bit for bit.

        p_value and pred_label (score above the `quantile` of the val normals) are empty without val normals.
        """
        threshold = thresholds.normal_quantile(self.score[self.normals], quantile).value
        columns = {name: getattr(self, name) for name in COLUMNS[:3]}
        columns |= {
            "label": self.label.tolist(),
            "score": _texts(self.score),
            "p_value": _texts(self.p_values()),
        }
        called = np.where(self.score > threshold, "1", "0").tolist()
        columns["pred_label"] = [""] * len(called) if math.isnan(threshold) else called
        columns |= {name: _texts(values) for name, values in self.floors.items()}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *zip(*columns.values(), strict=True)])
        return text.getvalue()

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


def judge(scores: Scores, quantile: float = 0.95, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """The content of metrics.json, but for its pixels; numbers that do not exist are None.

    Args:
        scores: every val and test case.
        quantile: share of normals meant to stay at or below the threshold.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: there are no test cases.
    """
    test = scores.of("test")
    if not test.any():
        raise UserError("scores: no case of the test split, so there is nothing to judge; see data.splits")
    label, patient = scores.label[test], np.array(scores.patient)[test].tolist()
    columns, calibration = {"detector": scores.score, **scores.floors}, scores.normals
    cuts = {name: thresholds.normal_quantile(values[calibration], quantile) for name, values in columns.items()}
    ratings = {name: (values[test], cuts[name].value) for name, values in columns.items()}
    replicated = statistics.bootstrap(label, patient, ratings, replicates, seed)
    tables = {name: _table(label, *ratings[name], replicated[name]) for name in columns}
    f1, at = thresholds.best_f1(label, scores.score[test])
    strata = {"replicates": replicates, "unit": "patient", "strata": "label", "level": LEVEL, "seed": seed}
    content: dict[str, Any] = _without_nan(
        {
            "counts": {split: _counts(scores, split) for split in ("val", "test")},
            "threshold": _describe(cuts["detector"]),
            "detector": tables.pop("detector"),
            "floors": tables,
            "trivial": {
                "all_anomalous": thresholds.confusion_metrics(label, np.ones_like(label, bool)),
                "all_normal": thresholds.confusion_metrics(label, np.zeros_like(label, bool)),
            },
            "versus_floors": _versus_floors(label, ratings, replicated),
            "oracle": {"best_f1": {"value": f1, "threshold": at}},
            "bootstrap": strata,
        }
    )
    return content


def _table(label: Labels, score: Floats, threshold: float, replicated: Mapping[str, Floats]) -> dict[str, Any]:
    """Every metric with its value and interval."""
    values = {
        "auroc": ranking.auroc(label, score),
        "average_precision": ranking.average_precision(label, score),
        "sensitivity_at_95_specificity": ranking.sensitivity_at_specificity(label, score, 0.95),
    }
    if not math.isnan(threshold):
        values |= thresholds.confusion_metrics(label, score > threshold)
    return {name: _estimate(values.get(name, math.nan), replicated[name]) for name in replicated}


def _estimate(value: float, replicated: Floats) -> dict[str, float]:
    low, high = statistics.interval(replicated, LEVEL)
    return {"value": value, "low": low, "high": high}


def _versus_floors(
    label: Labels, ratings: Mapping[str, tuple[Floats, float]], replicated: Mapping[str, Mapping[str, Floats]]
) -> dict[str, Any] | None:
    """The detector against the better floor, on the same replicates."""
    auroc = {name: ranking.auroc(label, score) for name, (score, _) in ratings.items()}
    ours = auroc.pop("detector")
    if not auroc:
        return None
    best = max(auroc, key=lambda name: auroc[name])
    paired = replicated["detector"]["auroc"] - replicated[best]["auroc"]
    difference = _estimate(ours - auroc[best], paired)
    beaten = difference["value"] > 0
    sentence = _sentence(best, ours, auroc[best], difference)
    return {"best": best, "difference": difference, "beaten": beaten, "sentence": sentence}


def _sentence(best: str, ours: float, floor: float, difference: Mapping[str, float]) -> str:
    value, low, high = difference["value"], difference["low"], difference["high"]
    if math.isnan(value):
        return "The detector cannot be compared with a floor: the test split holds one class only."
    name = {"mean_image": "mean-image", "pca_32": "PCA-32"}.get(best, best)
    verdict = "beats" if value > 0 else "does not beat"
    doubt = "excludes 0" if low > 0 or high < 0 else "includes 0, so these cases do not settle it"
    return (
        f"The detector {verdict} the {name} floor: AUROC {_short(ours)} against {_short(floor)} "
        f"(difference {_short(value, '+')}, 95 % interval {_short(low, '+')} to {_short(high, '+')}). "
        f"The interval {doubt}."
    )


def _short(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f").replace("0.", ".", 1)


def _counts(scores: Scores, split: str) -> dict[str, int]:
    label = scores.label[scores.of(split)]
    return {"normal": int((label == 0).sum()), "anomalous": int((label == 1).sum())}


def _describe(threshold: Threshold) -> dict[str, Any]:
    return {"rule": "quantile of held-out normals", **threshold._asdict()}


def _texts(values: Floats) -> list[str]:
    """Numbers as the shortest text that reads back to the same bits; nan is left empty."""
    return ["" if math.isnan(value) else repr(value) for value in values.tolist()]


def _numbers(row: Mapping[str, str], where: str) -> dict[str, float]:
    """The numbers of a row: label, score and floors."""
    if row["split"] not in ("val", "test") or row["label"] not in ("0", "1"):
        raise UserError(f"{where}: split must be val or test and label 0 or 1; evaluate the run to write it anew")
    try:
        return {name: float(row[name]) for name in row if name in ("label", "score") or name not in COLUMNS}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a score is not a number; evaluate the run to write it anew") from error


def _without_nan(value: Any) -> Any:
    """The same with None for nan, all the way down: JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
