"""How well rules of one number tell the classes apart, corrected for their number and by patient.

A rule's AUROC is two-sided: it tells the classes apart if either class is higher. Of some fifty rules one is always far
from 1/2 by chance, so labels are exchanged between patients (within a patient who has cases of both classes), and the
largest deviation of all rules, each in units of its own standard deviation, is what a deviation is compared with
(Westfall and Young 1993, single-step max-T): over all rules together, a set without shortcuts is accused in 5 % of
cases, however much the rules resemble each other.

A text, such as a manufacturer, is rated by how often its *other* patients are anomalous, with one patient more of the
whole set's share. Of each pair of an anomalous and a normal case both are left out, so that rare texts cannot fit
themselves; such an AUROC is one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from anomaly_lab.metrics import statistics
from anomaly_lab.metrics.comparison import auroc_interval
from anomaly_lab.metrics.ranking import Floats, Labels, auroc

LEVEL = 0.95
EXCHANGES = 2000  # of the labels; with few, the level itself is a matter of luck (1000: 5 ± 0.7 %)
TELLING = 0.7  # AUROC, two-sided, from which a rule that is no accident is named
FEWEST = 10  # cases of a class, and half as many patients, for an audit
STRATA = 5  # of like cases
STRONGEST = 5  # rules by which cases are stratified
MOST_TEXTS = 24  # different texts of a rule; rarer ones are one


@dataclass(frozen=True)
class Column:
    """What a rule says of N cases.

    Attributes:
        title: its name on the pages.
        kind: what it looks at: "greys", "places", "textures", "files" or "names".
        values: [N], numbers (NaN where it says nothing) or texts.
    """

    title: str
    kind: str
    values: NDArray[Any]

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.values.dtype.kind in "UO"


def rules_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the rules of a module by name: all its own public functions.

    Examples:
        >>> from anomaly_lab.evaluation.shortcuts import files
        >>> title_of(rules_of(files)["aspect"])
        'width ÷ height'
    """
    return {
        name: member
        for name, member in vars(module).items()
        if isinstance(member, FunctionType) and member.__module__ == module.__name__ and not name.startswith("_")
    }


def title_of(rule: Callable[..., Any]) -> str:
    """Return the name of a rule on the pages, the first line of its docstring.

    Examples:
        >>> from anomaly_lab.evaluation.shortcuts import places
        >>> title_of(places.middle)
        'mean of the middle'
    """
    title = (rule.__doc__ or rule.__name__).splitlines()[0].removesuffix(".")
    return title if title[1].isupper() else title[0].lower() + title[1:]  # "JPEG" stays


def audit(
    label: Labels, patient: Sequence[str], columns: Mapping[str, Column], score: Floats | None = None
) -> dict[str, Any]:
    """Measure every rule, and with a detector's scores how much these owe to the rules.

    Args:
        label: [N], 0 normal, 1 anomalous.
        patient: of each case.
        columns: the rules by name.
        score: scores of a detector, [N].

    Returns:
        JSON-ready: counts of cases; `rules`, strongest first, each with `auroc` (above 1/2: higher in anomalous cases),
        `told` (the same, two-sided), `p` (corrected for the number of rules), `chance` (by so much all AUROCs together
        deviate from 1/2 in 95 % of exchanges), `alarm`, and the rank correlation `follows` of the score with the rule
        within normals; `constant`, the rules that say the same of all cases; `strata`, the detector's AUROC
        among cases of like values of the strongest rules.

    Examples:
        >>> label = np.repeat([0, 1], 20)
        >>> columns = {"width": Column("width", "files", np.arange(40.0)), "bits": Column("bits", "files", np.ones(40))}
        >>> found = audit(label, [str(i) for i in range(40)], columns)
        >>> strongest = found["rules"][0]
        >>> strongest["name"], strongest["auroc"]["value"], strongest["alarm"], found["constant"]
        ('width', 1.0, True, ['bits'])
    """
    label = np.asarray(label, np.int64)
    names, who = np.unique(np.asarray(patient), return_inverse=True)
    counts = {"normal": int((label == 0).sum()), "anomalous": int((label == 1).sum())}
    of_normals = len(np.unique(who[label == 0]))
    exchanged = _exchanged(label, who)
    measured, nulls, constant = list[dict[str, Any]](), list[Floats](), list[str]()
    for name, column in columns.items():
        known = _known(column)
        if min((label[known] == 0).sum(), (label[known] == 1).sum()) < FEWEST:
            continue  # also a rule that says nothing here
        if len(np.unique(column.values[known])) < 2:
            constant.append(column.title)
            continue
        null = _aurocs(column, known, exchanged, who) - 0.5
        spread = float(null.std())
        (value,) = _aurocs(column, known, label[:, None].astype(np.float64), who).tolist()
        low, high = _interval(column, known, label, who, value)
        nulls.append((null if column.is_text else np.abs(null)) / (spread or 1.0))
        measured.append(
            {
                "name": name,
                "title": column.title,
                "kind": column.kind,
                "text": column.is_text,
                "auroc": {"value": value, "low": low, "high": high},
                "told": value if column.is_text else max(value, 1 - value),
                "spread": spread,
                "follows": math.nan if score is None else _follows(column, known & (label == 0), score),
            }
        )
    largest = np.sort(np.max(nulls, axis=0)) if nulls else np.zeros(1)
    limit = float(np.quantile(largest, LEVEL))
    for rule in measured:
        spread = rule.pop("spread")
        deviation = (rule["told"] - 0.5) / (spread or 1.0)
        rule["p"] = (1 + int((largest >= deviation - 1e-9).sum())) / (1 + len(largest))
        rule["chance"] = limit * spread
        rule["alarm"] = rule["p"] < 1 - LEVEL + 1e-9 and rule["told"] >= TELLING
    measured.sort(key=lambda rule: -float(rule["told"]))  # equal ones in the order of their definition
    found: dict[str, Any] = {"cases": counts, "patients": len(names), "normal_patients": of_normals, "level": LEVEL}
    found |= {"exchanges": EXCHANGES, "rules": measured, "constant": constant}
    if score is not None:
        strongest = [r for r in measured if r["kind"] != "names" and r["p"] < 1 - LEVEL][:STRONGEST]
        found["score"] = auroc(label, score)
        found["strata"] = [
            {"name": rule["name"], "title": rule["title"], **_stratified(label, who, columns[rule["name"]], score)}
            for rule in strongest
        ]
    return found


def is_enough(label: Labels, patient: Sequence[str]) -> bool:
    """Return whether both classes have the cases and patients that an audit takes.

    Examples:
        >>> is_enough(np.repeat([0, 1], 10), [str(i) for i in range(20)]), is_enough(np.zeros(20), ["a"] * 20)
        (True, False)
    """
    who = np.asarray(patient)
    of_class = [who[np.asarray(label) == value] for value in (0, 1)]
    return all(len(own) >= FEWEST and len(np.unique(own)) >= FEWEST // 2 for own in of_class)


def _known(column: Column) -> NDArray[np.bool_]:
    return np.ones(len(column.values), bool) if column.is_text else np.isfinite(column.values.astype(np.float64))


def _exchanged(label: Labels, who: NDArray[np.intp]) -> Floats:
    """Return labels that are exchanged between patients of one class, and within the others, [N, EXCHANGES] of float.

    Floats, because they are multiplied.
    """
    random = np.random.default_rng(0)
    anomalous, total = np.bincount(who, label), np.bincount(who)
    mixed = (anomalous > 0) & (anomalous < total)
    of_patient = np.zeros((len(total), EXCHANGES), np.int64)
    pure = np.flatnonzero(~mixed)
    own = np.broadcast_to((anomalous[pure] > 0).astype(np.int64)[:, None], (len(pure), EXCHANGES))
    of_patient[pure] = random.permuted(own, axis=0)
    exchanged = of_patient[who]
    for number in np.flatnonzero(mixed):
        cases = np.flatnonzero(who == number)
        own = np.broadcast_to(label[cases][:, None], (len(cases), EXCHANGES))
        exchanged[cases] = random.permuted(own, axis=0)
    return exchanged.astype(np.float64)


def _aurocs(column: Column, known: NDArray[np.bool_], labels: Floats, who: NDArray[np.intp]) -> Floats:
    """Return the AUROC of a rule for each column of labels [N, R]; 1/2 where a class has no case that it knows."""
    if column.is_text:
        return _told_by_texts(*_tables(column, labels, who))
    label = labels if known.all() else labels[known]
    anomalous = label.sum(0)
    pairs = anomalous * (len(label) - anomalous)
    wins = rankdata(column.values[known]) @ label - anomalous * (anomalous + 1) / 2
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)


def _tables(column: Column, labels: Floats, who: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Count the anomalous and the normal patients of each text, [K, R]; one with many cases counts in parts."""
    texts, code, times = np.unique(column.values.astype(str), return_inverse=True, return_counts=True)
    if len(texts) > MOST_TEXTS:
        frequent = times > np.sort(times)[-MOST_TEXTS]  # not some of equally rare ones, whose order may tell
        code = np.where(frequent[code], code, len(texts))
        code = np.unique(code, return_inverse=True)[1]
    weight = 1 / np.bincount(who)[who]
    one_hot = (code == np.arange(code.max() + 1)[:, None]) * weight
    return one_hot @ labels, one_hot @ (1 - labels)


def _told_by_texts(anomalous: Floats, normal: Floats) -> Floats:
    """Return the AUROC of texts, each pair rated by all other patients, from counts [K, R]; see the module."""
    total = anomalous + normal
    share = anomalous.sum(0) / total.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        as_anomalous = (np.maximum(anomalous - 1, 0) + share) / np.maximum(total, 1)
        as_normal = (anomalous + share) / np.maximum(total, 1)
        pairs = anomalous.sum(0) * normal.sum(0)
        wins = np.zeros(anomalous.shape[1])
        for text in range(len(total)):
            above = np.sign(as_anomalous[text] - as_normal)  # against each text of a normal case
            above[text] = 0  # the same text: a tie
            wins += anomalous[text] * (normal * (1 + above) / 2).sum(0)
        return np.where(pairs > 0, wins / np.maximum(pairs, 1e-9), 0.5)


def _interval(
    column: Column, known: NDArray[np.bool_], label: Labels, who: NDArray[np.intp], value: float
) -> tuple[float, float]:
    """Return the interval of one rule's AUROC by patient; it is not corrected for the number of rules."""
    if not column.is_text:
        return auroc_interval(label[known], column.values[known].astype(np.float64), who[known], LEVEL)
    tables = _tables(column, label[:, None].astype(np.float64), who)
    without = []
    for own, (counts, others) in enumerate((tables, tables[::-1])):
        for text, count in enumerate(counts[:, 0]):
            if count >= 1:
                fewer = counts.copy()
                fewer[text] -= 1
                (left,) = _told_by_texts(*((others, fewer) if own else (fewer, others))).tolist()
                without += [left] * round(count)
    fewest = min(len(np.unique(who[label == value])) for value in (0, 1))  # as for numbers
    return statistics.jackknife(value, np.array(without), LEVEL, fewest)


def _follows(column: Column, normals: NDArray[np.bool_], score: Floats) -> float:
    """Return Spearman's correlation of the scores with a rule among normals; NaN for texts and constants."""
    if column.is_text or normals.sum() < FEWEST:
        return math.nan
    one, other = column.values[normals].astype(np.float64), score[normals]
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _stratified(label: Labels, who: NDArray[np.intp], column: Column, score: Floats) -> dict[str, Any]:
    """Return the detector's AUROC over pairs of like cases, with its jackknife interval, and these pairs' share.

    Like are numbers of the same fifth of all cases, and equal texts. Only patients of strata with cases of both classes
    say anything, so it is they that the interval counts.
    """
    won, pairs = np.zeros((2, who.max() + 1)), 0.0  # by patient: wins and pairs that a case of theirs is in
    wins, judged = 0.0, (set[int](), set[int]())
    for members in _strata(column):
        anomalous, normal = members[label[members] == 1], members[label[members] == 0]
        if not (len(anomalous) and len(normal)):
            continue
        for seen, cases in zip(judged, (normal, anomalous), strict=True):
            seen.update(who[cases].tolist())
        above = np.sign(score[anomalous][:, None] - score[normal]) / 2 + 0.5
        wins, pairs = wins + above.sum(), pairs + above.size
        for cases, sums, others in ((anomalous, above.sum(1), len(normal)), (normal, above.sum(0), len(anomalous))):
            np.add.at(won, (0, who[cases]), sums)
            np.add.at(won, (1, who[cases]), others)
        shared = who[anomalous][:, None] == who[normal]  # pairs within a patient were counted twice
        np.add.at(won, (0, np.broadcast_to(who[anomalous][:, None], shared.shape)[shared]), -above[shared])
        np.add.at(won, (1, np.broadcast_to(who[anomalous][:, None], shared.shape)[shared]), -1.0)
    if not pairs:
        return {"auroc": {"value": math.nan, "low": math.nan, "high": math.nan}, "pairs": 0.0}
    value = wins / pairs
    rest = pairs - won[1]
    without = np.where(rest > 0, (wins - won[0]) / np.maximum(rest, 1), value)
    low, high = statistics.jackknife(float(value), without, LEVEL, min(map(len, judged)))
    all_pairs = float(label.sum() * (label == 0).sum())
    return {"auroc": {"value": float(value), "low": low, "high": high}, "pairs": pairs / all_pairs}


def _strata(column: Column) -> Iterator[NDArray[np.intp]]:
    """Yield the cases of each stratum: of a text, or of a fifth of the ranks.

    Equal values share a rank, the middle of theirs, so that two values of a rule never fall into one stratum.
    """
    if column.is_text:
        for text in np.unique(column.values.astype(str)):
            yield np.flatnonzero(column.values.astype(str) == text)
        return
    values = column.values.astype(np.float64)
    known = np.isfinite(values)
    stratum = np.full(len(values), -1)
    stratum[known] = np.floor(STRATA * (rankdata(values[known]) - 0.5) / known.sum())
    for number in range(STRATA):
        yield np.flatnonzero(stratum == number)
