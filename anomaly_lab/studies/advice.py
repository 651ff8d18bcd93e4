"""Which method for these data: in words, from the joint intervals, the cost and the shortcuts of a study."""

from __future__ import annotations

import math
from typing import NamedTuple

from anomaly_lab.metrics.comparison import holm
from anomaly_lab.reports import shortcuts
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import duration
from anomaly_lab.studies.findings import Findings, Line
from anomaly_lab.studies.foreseen import foreseen
from anomaly_lab.studies.intervals import over_pairs
from anomaly_lab.studies.plan import Repeat
from anomaly_lab.studies.results import Result

SETTLED = 0.05  # corrected p-value below which two methods are told apart
GUESSING = 0.5
NAMED = 4  # methods that a sentence lists; the table has all


class Place(NamedTuple):
    """A method's place among the others.

    Attributes:
        line: the method and its results.
        p: of its difference from the best, for new patients and new trainings, by Holm's method; 1 of the best.
        seconds: of its training, and of that it started from; 0 of a baseline, None if unknown.
    """

    line: Line
    p: float
    seconds: float | None

    @property
    def is_alike(self) -> bool:
        """Whether it is not told apart from the best."""
        return not self.p < SETTLED


class Advice(NamedTuple):
    """What a study says to somebody who has to choose.

    Attributes:
        ranked: all methods, the one with the highest AUROC first.
        choice: name of the method to take: of those not told apart from the best the cheapest.
        paragraphs: the advice in words: what to take; by what the set is told apart without a detector; who judges
            beside a neighbour that trains; what planted lesions would have chosen.
    """

    ranked: list[Place]
    choice: str
    paragraphs: list[str]


def advice(findings: Findings, dataset: str) -> Advice | None:
    """Recommend a method for a data set; None without results.

    A baseline is fitted in seconds, so it is the choice wherever no detector is told apart from it.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        On the results of a finished study::

            print(*advice(findings, "own").paragraphs)
    """
    ranked = sorted(
        (line for line in findings.lines if math.isfinite(line.cells[dataset].summary.mean)),
        key=lambda line: -line.cells[dataset].summary.mean,
    )
    if not ranked:
        return None
    lacking = {key.row for key in findings.missing if key.dataset == dataset}
    if findings.reference in lacking:  # whose runs have the baselines' scores
        lacking |= {line.name for line in ranked if line.is_baseline}
    partial = [line.title for line in ranked if line.name in lacking]
    ranked = [line for line in ranked if line.name not in lacking]
    apart = f"Not compared, because runs of theirs are missing: {', '.join(partial)}." if partial else ""
    if not ranked:
        return Advice([], "", [apart])
    best, others = ranked[0], ranked[1:]
    p_values = [1.0, *holm([_p(findings, dataset, best, other) for other in others])]
    places = [Place(line, p, _seconds(findings, line, dataset)) for line, p in zip(ranked, p_values, strict=True)]
    alike = [place for place in places if place.is_alike]
    first = min(
        alike, key=lambda place: (not place.line.is_baseline, math.inf if place.seconds is None else place.seconds)
    )
    said = [_of_best(best, dataset)]
    if len(alike) > 1:
        names = [f"{line.title} ({rate(line.cells[dataset].summary.mean)})" for line, *_ in alike[1:]]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said.append(f"On {_patients(findings, dataset)} it is not told apart from {', '.join(names[:NAMED])}{more}.")
    choice, trained = first.line, "" if first.seconds is None else f" in {duration(first.seconds)}"
    if choice is not best and choice.is_baseline:
        said.append(
            f"{choice.title} is one of these and costs nothing, every report has it: these cases do not show that any "
            "training is worth more. Collect more of them to choose better."
        )
    elif choice is not best:
        said.append(
            f"Of these {choice.title} costs least (trained{trained}): begin with it, and collect more cases to choose "
            "better."
        )
    elif best.is_baseline:
        said.append(
            "It is a baseline, fitted in seconds: no detector of this list is worth its training on these data."
        )
    else:
        said.append(f"Take it: it trains{trained}." if trained else "Take it.")
    if best.cells[dataset].low < GUESSING:
        said.append("But its interval reaches down to guessing: these cases do not show that anything is found at all.")
    run = next(iter(findings.of(findings.reference, dataset).values()), None)
    told = (run.metrics.get("shortcuts") or {}) if run else {}
    paragraphs = [" ".join(said), *([apart] if apart else [])]
    paragraphs += [banner.text for banner in shortcuts.banners({k: v for k, v in told.items() if k != "score"})]
    paragraphs += _leak(findings, dataset)
    if (before := foreseen(findings, dataset)) is not None:
        first_choice = before.names[before.planted.index(max(before.planted))]
        paragraphs.append(
            f"Lesions planted on validation normals, without a label, would have chosen {findings.title(first_choice)}."
        )
    return Advice(places, choice.name, paragraphs)


def _of_best(best: Line, dataset: str) -> str:
    cell = best.cells[dataset]
    interval = f" [{rate(cell.low, 2)}, {rate(cell.high, 2)}]" if math.isfinite(cell.low) else ""
    return f"{best.title} finds most: AUROC {rate(cell.summary.mean)}{interval}."


def _patients(findings: Findings, dataset: str) -> str:
    """Say how many patients of each class judged."""
    sides: dict[int, set[str]] = {0: set(), 1: set()}
    for key, run in findings.results.items():
        if key.dataset == dataset:
            for label in sides:
                sides[label] |= set(run.patient[run.label == label].tolist())
    return f"{len(sides[0])} patients without and {len(sides[1])} with anomalies"


def _leak(findings: Findings, dataset: str) -> list[str]:
    """Say how many judged normals have a neighbour in the listing that trains; nothing where neighbours differ."""
    data = [run.facts.get("data") or {} for run in findings.of(findings.reference, dataset).values()]
    audits = [(each.get("audit") or {}).get("likeness") or {} for each in data]
    found = [near for audit in audits if (near := audit.get("neighbours")) and near["together"]]
    leaking, judged = (sum(near[name] for near in found) for name in ("leaking", "judged"))
    if not leaking:
        return []
    joined = "data.group=likeness has joined the others."
    remedy = "Give data.group=likeness as well: neighbours stay together."
    return [
        f"Files that follow each other look like one patient’s here, and {leaking} of {judged} judged normals have "
        "such a neighbour that trains: these figures are better than on new patients. "
        + (joined if any("groups" in each for each in data) else remedy)
    ]


def _runs(findings: Findings, line: Line, dataset: str) -> dict[Repeat, Result]:
    return findings.baseline(line.name, dataset) if line.is_baseline else findings.of(line.name, dataset)


def _p(findings: Findings, dataset: str, one: Line, other: Line) -> float:
    """Return the p-value of the difference of two methods for new patients and trainings; 1 without common repeats."""
    a, b = _runs(findings, one, dataset), _runs(findings, other, dataset)
    pairs = [(a[repeat], b[repeat]) for repeat in a if repeat in b]
    estimate = over_pairs(pairs, ["auroc"], "auroc").get("auroc")
    return 1.0 if estimate is None or math.isnan(estimate.p) else estimate.p


def _seconds(findings: Findings, line: Line, dataset: str) -> float | None:
    """Return the training time, that of a warm start with it; 0 of a baseline, None if unknown."""
    if line.is_baseline:
        return 0.0
    cost = findings.costs().get((line.name, dataset))
    parts = [each for each in (cost.seconds, cost.warm_start) if each is not None] if cost else []
    return sum(parts) if parts else None
