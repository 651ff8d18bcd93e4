"""Read the results of a run, and find the test cases that two runs share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from yaml import YAMLError

from anomaly_lab.data.splitting.recorded import SPLIT, RecordedSplit
from anomaly_lab.evaluation.classes import FILE, ClassTable, called_classes
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.record import read_metrics, read_provenance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.metrics import ranking, statistics
from anomaly_lab.metrics.classification import Judged, Measures, unweighted
from anomaly_lab.metrics.comparison import DeLong, delong
from anomaly_lab.studies.plan import Metric, plain
from anomaly_lab.types import UserError

METRICS = {
    "auroc": ("AUROC", ranking.auroc),
    "average_precision": ("Average precision", ranking.average_precision),
    "sensitivity_at_95_specificity": ("Sensitivity at 95 % specificity", ranking.sensitivity_at_specificity),
}
TITLES: dict[Metric, str] = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "sensitivity_at_95_specificity": "Sensitivity at 95 % specificity",
    "map": "Mean average precision",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "unweighted_precision": "Unweighted precision",
    "unweighted_recall": "Unweighted recall",
    "unweighted_f1": "Unweighted F1",
}
OF_CLASSES = {"map": "mean_average_precision", "accuracy": "accuracy", "macro_f1": "macro_f1"}  # in metrics.json
UNWEIGHTED = "unweighted_"  # begins the metrics that are means over anomalous and normal
RENAMED_RULES = {"quantile of held-out normals": "quantile of validation normals"}  # as older runs recorded them
OF_THE_DRAW = ("root", "source", "seed", "split", "limits", "augment", "batch_size", "epoch_length")  # no pixel changes


@dataclass(frozen=True)
class Result:
    """Results of one run on its test split.

    Attributes:
        run: the run folder.
        id: ids of the test cases, [N].
        patient: patient of each case, [N].
        label: [N], 0 normal, 1 anomalous.
        score: raw scores, [N].
        baselines: name -> scores of a baseline, [N].
        facts: content of provenance.json.
        metrics: content of metrics.json; empty where there is none.

    Examples:
        >>> ids, label = np.array(["a", "b", "c"]), np.array([0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.2, 0.1, 0.9]), {}, {"seconds": {"gan": 60.0}})
        >>> result.figure("auroc"), result.seconds
        (0.5, 60.0)
    """

    run: Path
    id: np.ndarray
    patient: np.ndarray
    label: ranking.Labels
    score: ranking.Floats
    baselines: dict[str, ranking.Floats]
    facts: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    _known: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def read(cls, run: Path) -> Result:
        """Read the folder of a finished run.

        Raises:
            UserError: its scores.csv is missing or invalid, or another file is damaged.
        """
        scores = Scores.read(run / "scores.csv")
        test = scores.of("test")
        baselines = {name: values[test] for name, values in scores.baselines.items()}
        facts, metrics = read_provenance(run), read_metrics(run)
        id, patient = np.array(scores.id)[test], np.array(scores.patient)[test]
        return cls(run, id, patient, scores.label[test], scores.score[test], baselines, facts, metrics)

    @property
    def caveats(self) -> list[str]:
        """Warnings that a reader must know before the numbers, as recorded by the run."""
        return list((self.facts.get("detector") or {}).get("caveats") or [])

    @property
    def marked(self) -> bool:
        """Whether its numbers need a warning: it has caveats or used the synthetic twin."""
        return bool(self.caveats) or self.facts.get("source") == "twin"

    @property
    def threshold(self) -> float:
        """The run's threshold: cases with higher scores are called anomalous; NaN without one."""
        value = (self.metrics.get("threshold") or {}).get("value")
        return math.nan if value is None else float(value)

    @property
    def rule(self) -> str:
        """How the threshold was set."""
        rule = str((self.metrics.get("threshold") or {}).get("rule") or "")
        return RENAMED_RULES.get(rule, rule)

    @property
    def code(self) -> str:
        """Fingerprint of the code that trained and scored the run."""
        code = self.facts.get("code", "")
        return str(code["training"] if isinstance(code, dict) else code)

    def evaluated_as(self, figures: dict[str, Any], rule: str = "") -> Result:
        """Return the same test split with other metrics: those of a baseline or a trivial rule.

        Args:
            figures: metrics in the form of metrics.json's `detector`.
            rule: how the threshold was set.
        """
        classes = (self.facts.get("data") or {}).get("classes")
        facts = {"data": {"classes": classes}} if classes else {}
        return replace(self, metrics={"detector": figures, "threshold": {"rule": rule}}, facts=facts, baselines={})

    def figure(self, metric: str = "auroc") -> float:
        """Return a metric of TITLES: those of METRICS from the scores, others from metrics.json; nan if there is none.

        A run without classes has an accuracy if there are but two, normal and anomalous.
        """
        if metric not in self._known:
            self._known[metric] = self._figure(metric)
        return self._known[metric]

    def _figure(self, metric: str) -> float:
        if metric in METRICS:
            return METRICS[metric][1](self.label, self.score)
        if metric.startswith(UNWEIGHTED):
            recall, specificity = (self.decided(name) for name in ("recall", "specificity"))
            p, n = float((self.label == 1).sum()), float((self.label == 0).sum())
            counts = (recall * p, (1 - specificity) * n, specificity * n, (1 - recall) * p)
            return unweighted(*(np.array([count]) for count in counts))[metric.removeprefix(UNWEIGHTED)].item()
        if "classes" in self.metrics:
            value = (self.metrics["classes"].get(OF_CLASSES[metric]) or {}).get("value")
            return math.nan if value is None else float(value)
        names = ((self.facts.get("data") or {}).get("classes") or {}).get("names") or ()
        return self.decided("accuracy") if metric == "accuracy" and len(names) <= 2 else math.nan

    def decided(self, metric: str) -> float:
        """Return a metric of the decisions at the threshold, as metrics.json has it; nan where it has none."""
        entry = (self.metrics.get("detector") or {}).get(metric)
        value = entry.get("value") if isinstance(entry, dict) else entry
        return math.nan if value is None else float(value)

    def replicated(self, metric: str, replicates: int, cases: np.ndarray | None = None) -> np.ndarray:
        """Compute a metric of TITLES under a bootstrap over patients, the same for all runs on the same cases.

        Args:
            metric: of TITLES.
            replicates: their number R.
            cases: indices of the test cases to use; None for all.

        Returns:
            [R]; nan where a replicate lost a class.

        Raises:
            UserError: classes.csv is needed, and damaged.
        """
        cases = np.arange(len(self.id)) if cases is None else cases
        measure = self.weighted([metric], cases, own=metric)
        weights = statistics.draw_weights(self.label[cases], self.patient[cases].tolist(), replicates, seed=0)
        return np.concatenate([measure(weight)[metric] for weight in weights])

    def weighted(
        self, metrics: Sequence[str], cases: np.ndarray, own: str = ""
    ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Return what computes metrics under weights [N, R] of the given N cases: metric -> [R].

        Args:
            metrics: of TITLES, or of the decisions at the threshold.
            cases: indices of test cases.
            own: of these the one that is of classes, if the run has any: `accuracy` may be either.

        Raises:
            UserError: classes.csv is needed, and damaged.
        """
        of_classes = [
            metric for metric in metrics if metric in OF_CLASSES and metric == own and "classes" in self.metrics
        ]
        others = [metric for metric in metrics if metric not in of_classes]
        label, score = self.label[cases], self.score[cases]
        plain = statistics.WeightedMetrics(label, score, self.cut)
        measures = None
        if of_classes:
            target, probability, called, exclusive = self.judged
            measures = Measures(Judged(target[cases], probability[cases], called[cases], exclusive))
        outcomes = np.stack([(score > self.cut) == above for above in (True, True, False, False)])
        outcomes &= np.stack([label == value for value in (1, 0, 0, 1)])

        def under(weight: np.ndarray) -> dict[str, np.ndarray]:
            figures, known = measures(weight) if measures else {}, plain(weight)
            found = {metric: figures[OF_CLASSES[metric]] for metric in of_classes}
            for metric in others:
                if metric.startswith(UNWEIGHTED):
                    shares = unweighted(*(outcomes.astype(np.float64) @ weight))
                    found[metric] = shares[metric.removeprefix(UNWEIGHTED)]
                else:
                    found[metric] = known.get(metric, np.full(weight.shape[1], np.nan))
            return found

        return under

    @cached_property
    def cut(self) -> float:
        """The threshold; of a baseline, whose threshold is not recorded, one with the same decisions; NaN without one.

        Its recall and specificity say how many cases lie above it, and those are the highest ones.
        """
        recall, specificity = (self.decided(name) for name in ("recall", "specificity"))
        if not math.isnan(self.threshold) or math.isnan(recall + specificity):
            return self.threshold
        positives = int((self.label == 1).sum())
        called = round(recall * positives + (1 - specificity) * (len(self.label) - positives))
        return float(np.sort(self.score)[::-1][called]) if called < len(self.score) else -math.inf

    @cached_property
    def judged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Target, probability and decisions [N, K] of the test cases, and whether the classes exclude each other.

        Raises:
            UserError: classes.csv is damaged or of other cases than scores.csv.
        """
        path, classes = self.run / FILE, self.metrics["classes"]
        table = ClassTable.read(path)
        place = {id: row for row, id in enumerate(table.id)}
        if list(table.classes) != classes.get("names") or not place.keys() >= set(self.id.tolist()):
            raise UserError(
                f"{path}: of other cases or classes than the run’s scores; evaluate the run to write it again"
            )
        rows = np.array([place[id] for id in self.id.tolist()])
        each = classes.get("each") or {}
        cuts = [cut for name in table.classes if (cut := (each.get(name) or {}).get("threshold")) is not None]
        called = called_classes(table.probability, cuts if len(cuts) == len(table.classes) else [])
        return table.target[rows], table.probability[rows], called[rows], classes.get("task") == "multiclass"

    @property
    def seconds(self) -> float | None:
        """Training time in seconds, without a phase taken from another run; None if not recorded."""
        seconds: dict[str, float] = self.facts.get("seconds") or {}
        return sum(seconds.values()) if seconds else None

    @property
    def memory(self) -> float | None:
        """Peak memory in GB, of the GPU if there is one; None if not recorded."""
        peak = self.facts.get("peak_gb") or {}
        return peak.get("gpu") or peak.get("ram")


def within_split(a: Result, b: Result) -> tuple[int, DeLong]:
    """Compare two runs by DeLong's test on the test cases that both evaluated.

    Returns:
        Number of these cases, and the test; its figures are NaN without any case.

    Examples:
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> a = Result(Path("a"), ids, ids, label, np.array([0.1, 0.2, 0.3, 0.4]), {}, {})
        >>> b = Result(Path("b"), ids[1:], ids[1:], label[1:], np.array([0.5, 0.4, 0.9]), {}, {})
        >>> cases, test = within_split(a, b)
        >>> cases, test.a, test.b
        (3, 1.0, 0.5)
    """
    in_a, in_b = in_common(a, b)
    if not len(in_a):
        return 0, DeLong(*[math.nan] * 5)
    return len(in_a), delong(a.label[in_a], a.score[in_a], b.score[in_b], a.patient[in_a])


def in_common(a: Result, b: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in `a` and in `b` of the test cases that both evaluated.

    They are empty if their labels disagree, or if the runs mean other pictures by the same ids.

    Examples:
        >>> label, score = np.array([1, 1]), np.array([0.1, 0.9])
        >>> ids = np.array(["x", "y"]), np.array(["y", "z"])
        >>> a, b = (Result(Path("run"), id, id, label, score, {}, {}) for id in ids)
        >>> [indices.tolist() for indices in in_common(a, b)]
        [[1], [0]]
    """
    _, in_a, in_b = np.intersect1d(a.id, b.id, return_indices=True)
    agreed = np.array_equal(a.label[in_a], b.label[in_b]) and _of_the_same_files(a, b)
    return (in_a, in_b) if agreed else (in_a[:0], in_b[:0])


def _of_the_same_files(a: Result, b: Result) -> bool:
    """Whether runs mean the same pictures by an id: a twin never has those of real files, two folders seldom.

    Nor has a folder whose pictures were replaced between the runs, which shows where both read them alike.
    """
    sources = {each.facts.get("source") for each in (a, b)} - {None}
    data = [each.facts.get("data") or {} for each in (a, b)]
    roots, contents = ({each.get(key) for each in data} - {None} for key in ("root", "fingerprint"))
    if len(sources) > 1 or sources == {"twin"}:
        return len(sources) < 2
    if len(roots) < 2 and (len(contents) < 2 or not _read_alike(a, b)):
        return True
    one, other = (RecordedSplit.read(each.run / SPLIT) for each in (a, b))
    return one is None or other is None or one.agrees(other)  # older code recorded no split


def _read_alike(a: Result, b: Result) -> bool:
    """Whether two runs make the same of a picture by their settings; otherwise their digests differ anyway."""
    sections = []
    for each in (a, b):
        try:
            section = dict(plain(regular(each.run / "config.yaml").read_text())["data"])
        except (OSError, ValueError, KeyError, TypeError, YAMLError, UserError):
            return False
        sections.append({key: value for key, value in section.items() if key not in OF_THE_DRAW})
    return sections[0] == sections[1]
