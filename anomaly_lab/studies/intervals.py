"""What the figures of a study are worth for new patients and new trainings, from the cases that its runs judged.

AUROCs have a closed form; other metrics are bootstrapped, the same patients drawn for all runs (`metrics.joint`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly_lab.evaluation.protocol import interval_of
from anomaly_lab.metrics import joint, statistics
from anomaly_lab.metrics.joint import Estimate, Sample
from anomaly_lab.metrics.ranking import Floats
from anomaly_lab.studies.results import Result, in_common

REPLICATES = 1000  # of the bootstrap

Member = tuple[Result, NDArray[np.intp]]  # a run and which of its test cases are judged


def over_runs(runs: Sequence[Result], metrics: Sequence[str], own: str = "") -> dict[str, Estimate]:
    """Return the mean of each metric over the repeats of a method, with its interval.

    Args:
        runs: of all repeats, each with the metrics.
        metrics: names as `Result.weighted` takes them.
        own: the study's metric.

    Examples:
        >>> from pathlib import Path
        >>> ids, label = np.arange(40).astype(str), np.repeat([0, 1], 20)
        >>> runs = [Result(Path("r"), ids, ids, label, np.arange(40.0) % k, {}, {}) for k in (31, 33)]
        >>> estimate = over_runs(runs, ["auroc"])["auroc"]
        >>> round(estimate.value, 3), round(estimate.low, 2), round(estimate.high, 2), estimate.patients
        (0.681, 0.48, 0.83, (20, 20))
    """
    members = [(run, np.arange(len(run.id))) for run in runs]
    found = {}
    if "auroc" in metrics:
        found["auroc"] = joint.auroc([Sample(run.label, run.score, run.patient) for run in runs])
    others = [metric for metric in metrics if metric != "auroc"]
    if others:
        patients = _patients(members)
        values, replicated = _measured(members, others, own)
        for metric in others:
            estimate = joint.from_replicates(values[metric], replicated[metric], patients)
            if len(runs) == 1:  # as in the run's own report
                fewest = min(patients)
                low, high = interval_of(values[metric].item(), replicated[metric][0], fewest, fewest)
                estimate = estimate._replace(low=low, high=high)
            found[metric] = estimate
    return found


def over_pairs(pairs: Sequence[tuple[Result, Result]], metrics: Sequence[str], own: str = "") -> dict[str, Estimate]:
    """Return the mean difference of each metric over common repeats, from the cases that both of a pair judged.

    Args:
        pairs: two runs of each repeat.
        metrics: as in `over_runs`.
        own: the study's metric.

    Returns:
        metric -> estimate; empty if the runs of a pair have no case in common.

    Examples:
        >>> from pathlib import Path
        >>> ids, label = np.arange(40).astype(str), np.repeat([0, 1], 20)
        >>> one, other = (Result(Path("r"), ids, ids, label, np.arange(40.0) % k, {}, {}) for k in (31, 33))
        >>> estimate = over_pairs([(one, other)], ["auroc"])["auroc"]
        >>> round(estimate.value, 3), estimate.low < 0 < estimate.high, estimate.p > 0.05
        (-0.06, True, True)
    """
    common = [in_common(a, b) for a, b in pairs]
    if not pairs or not all(len(in_a) for in_a, _ in common):
        return {}
    found = {}
    if "auroc" in metrics:
        found["auroc"] = joint.auroc_difference([
            Sample(a.label[in_a], a.score[in_a], a.patient[in_a], b.score[in_b])
            for (a, b), (in_a, in_b) in zip(pairs, common, strict=True)
        ])  # fmt: skip
    others = [metric for metric in metrics if metric != "auroc"]
    if others:
        members = [
            member for (a, b), (in_a, in_b) in zip(pairs, common, strict=True) for member in ((a, in_a), (b, in_b))
        ]
        values, replicated = _measured(members, others, own)
        for metric in others:
            differences, drawn = values[metric][::2] - values[metric][1::2], replicated[metric]
            found[metric] = joint.from_replicates(differences, drawn[::2] - drawn[1::2], _patients(members), least=-1.0)
            if not np.ptp(drawn[::2] - drawn[1::2]) and not differences.any():  # they decide alike
                found[metric] = found[metric]._replace(low=0.0, high=0.0, p=1.0)
    return found


def too_few(runs: Sequence[Result]) -> str | None:
    """Return the sentence that stands instead of intervals if runs judged too few patients of a class, else None.

    Examples:
        >>> from pathlib import Path
        >>> ids = np.array(["a", "b"])
        >>> too_few([Result(Path("r"), ids, ids, np.array([0, 1]), np.zeros(2), {}, {})])
        'No intervals: 1 normal and 1 anomalous patients were judged, and an interval needs 5 of each.'
    """
    return joint.too_few(*_patients([(run, np.arange(len(run.id))) for run in runs])) if runs else None


def _patients(members: Sequence[Member]) -> tuple[int, int]:
    """Return the number of normal and of anomalous patients that any of the runs judged."""
    label = np.concatenate([run.label[cases] for run, cases in members])
    return joint.count_patients(label, np.concatenate([run.patient[cases] for run, cases in members]))


def _measured(
    members: Sequence[Member], metrics: Sequence[str], own: str
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return the value of each metric for each run [M], and its replicates [M, B]."""
    measures = [run.weighted(metrics, cases, own) for run, cases in members]
    once = [measure(np.ones((len(cases), 1), np.int32)) for measure, (_, cases) in zip(measures, members, strict=True)]
    values = {metric: np.array([figures[metric].item() for figures in once]) for metric in metrics}
    blocks: dict[str, list[Floats]] = {metric: [] for metric in metrics}
    for weights in _draws(members):
        drawn = [measure(weight) for measure, weight in zip(measures, weights, strict=True)]
        for metric in metrics:
            blocks[metric].append(np.stack([figures[metric] for figures in drawn]))
    return values, {metric: np.concatenate(parts, axis=1) for metric, parts in blocks.items()}


def _draws(members: Sequence[Member]) -> Iterator[list[NDArray[np.int32]]]:
    """Yield for each run how often its cases are drawn, [N, R], in blocks; a patient as often in all runs."""
    names = np.concatenate([run.patient[cases] for run, cases in members])
    label = np.concatenate([run.label[cases] for run, cases in members])
    everyone = np.unique(names, return_inverse=True)[1]
    kinds, place = np.unique(2 * everyone + label, return_inverse=True)  # a patient's normal and anomalous cases
    rows = np.split(place, np.cumsum([len(cases) for _, cases in members])[:-1])
    for weight in statistics.draw_weights(kinds % 2, kinds // 2, REPLICATES, seed=0):
        yield [weight[of_run] for of_run in rows]


def undefined(value: float) -> Estimate:
    """Return a value without an interval.

    Examples:
        >>> undefined(0.5).value, undefined(0.5).low
        (0.5, nan)
    """
    return Estimate(value, math.nan, math.nan, math.nan, (0, 0), math.nan, math.nan)
