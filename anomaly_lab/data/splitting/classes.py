"""Class targets: what labels and class names of cases say about the classes that a detector learns to tell apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anomaly_lab.experiment.schema import did_you_mean
from anomaly_lab.types import Case, UserError

NORMAL, ANOMALOUS = "normal", "anomalous"  # classes that follow from the label
UNKNOWN = -1  # as a target: the owners of the data say neither yes nor no
JOINT = "+"  # between the classes of one case
_JOINTS = re.compile(r"(?<=.)\+(?=[^+])")  # none at the end of a name, as of CD8+


class Labels(NamedTuple):
    """What is known of a case: its label, its class name, and the classes about which nothing is known."""

    label: int
    class_name: str
    unknown: tuple[str, ...] = ()

    @property
    def parts(self) -> frozenset[str]:
        """The classes that the class name joins; of a normal case `normal`, of a nameless anomaly `anomalous`.

        Examples:
            >>> sorted(Labels(1, "Gun+Knife").parts), sorted(Labels(0, "NORMAL").parts), sorted(Labels(1, "").parts)
            (['Gun', 'Knife'], ['normal'], ['anomalous'])
            >>> sorted(Labels(1, "CD8+").parts), sorted(Labels(1, "CD8++HER2+").parts)
            (['CD8+'], ['CD8+', 'HER2+'])
        """
        if self.label == 0:
            return frozenset((NORMAL,))
        return frozenset(filter(None, _JOINTS.split(self.class_name))) or frozenset((ANOMALOUS,))

    def refuse_contradictions(self, case: str) -> None:
        """Raise UserError if the labels of a case contradict each other."""
        if self.label and NORMAL in self.parts:
            raise UserError(f"{case}: it is labelled anomalous and is of class {self.class_name!r}; correct the labels")
        if doubtful := self.parts.intersection(self.unknown):
            raise UserError(f"{case}: it is of class {min(doubtful)!r}, which is also unknown; correct the labels")


class Coded(NamedTuple):
    """Labels of many cases, of which few differ: the distinct ones, and the number of those of each case, [N]."""

    distinct: list[Labels]
    code: np.ndarray

    @classmethod
    def of(cls, labels: Iterable[Labels]) -> Coded:
        """Number labels in the order in which they first appear.

        Examples:
            >>> Coded.of([Labels(0, ""), Labels(1, "Gun"), Labels(0, "")]).code.tolist()
            [0, 1, 0]
        """
        numbers: dict[Labels, int] = {}
        code = np.fromiter((numbers.setdefault(each, len(numbers)) for each in labels), np.int32)
        return cls(list(numbers), code)

    @classmethod
    def of_cases(cls, cases: Iterable[Case]) -> Coded:
        """Number the labels of cases."""
        return cls.of(Labels(case.label, case.class_name, case.unknown) for case in cases)

    def strata(self) -> tuple[list[str], np.ndarray]:
        """Return the names of all classes that occur, sorted, and which of them each case is of, bool [N, classes]."""
        names = sorted(set().union(*(labels.parts for labels in self.distinct)))
        table = np.array([[name in labels.parts for name in names] for labels in self.distinct], bool)
        return names, table.reshape(-1, len(names))[self.code]


@dataclass(frozen=True)
class Classes:
    """The classes that a detector learns to tell apart.

    Attributes:
        names: "normal" has label 0, "anomalous" label 1; all others are class names.
        multilabel: whether a case may be of any number of them, "normal" being none, or is of exactly one.

    Examples:
        >>> labels = Coded.of([Labels(0, ""), Labels(1, "Gun+Knife"), Labels(1, "other"), Labels(1, "Knife", ("Gun",))])
        >>> Classes(("Gun", "Knife"), multilabel=True).targets(labels).tolist()
        [[0, 0], [1, 1], [0, 0], [-1, 1]]
        >>> Classes(("normal", "anomalous")).targets(labels).tolist()
        [[1, 0], [0, 1], [0, 1], [0, 1]]
        >>> multiclass = Classes(("normal", "Gun", "Knife"))  # two, none, and perhaps two of them: left out
        >>> multiclass.targets(labels).tolist(), multiclass.left_out(labels)
        ([[1, 0, 0], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]], {'Gun+Knife': 1, 'other': 1, 'Knife (Gun unknown)': 1})
    """

    names: tuple[str, ...] = (NORMAL, ANOMALOUS)
    multilabel: bool = False

    def __post_init__(self) -> None:
        given = f"data.classes=[{','.join(self.names)}]"
        if repeated := [name for name, times in Counter(self.names).items() if times > 1]:
            raise UserError(f"{given}: {repeated[0]!r} appears twice; name each class once")
        if self.multilabel and NORMAL in self.names:
            raise UserError(
                f"{given}: with data.target_type=multilabel, normal means none of the classes; leave it out"
            )
        if len(self.names) < (1 if self.multilabel else 2):
            raise UserError(
                f"{given}: too few classes to tell apart; name {'one' if self.multilabel else 'two'} at least"
            )

    def targets(self, labels: Coded) -> np.ndarray:
        """Return the targets of cases, int8 [N, K]: 1 yes, 0 no, -1 unknown; all -1 for a case that is left out."""
        table = np.array([self._row(each) or [UNKNOWN] * len(self.names) for each in labels.distinct], np.int8)
        return np.asarray(table.reshape(-1, len(self.names))[labels.code])

    def keeps(self, labels: Coded) -> np.ndarray:
        """Return which cases are kept, bool [N]: all of them, or those that are of exactly one of the classes."""
        return np.asarray(np.array([self._row(each) is not None for each in labels.distinct], bool)[labels.code])

    def left_out(self, labels: Coded) -> dict[str, int]:
        """Count the cases that are left out, by what they are."""
        counts = np.bincount(labels.code, minlength=len(labels.distinct)).tolist()
        found = zip(labels.distinct, counts, strict=True)
        return {_said(each): count for each, count in found if count and self._row(each) is None}

    def refuse_absent(self, labels: Coded) -> None:
        """Raise UserError if a class name is that of no case, or if it is unknown of every case whether it is of it."""
        known = {NORMAL, ANOMALOUS}.union(*(self._held(each) for each in labels.distinct))
        for name in self.names:
            if name not in known:
                others = sorted(known - {NORMAL, ANOMALOUS}) or sorted(known)
                everywhere = all(name in each.unknown for each in labels.distinct)
                why = f"of every case it is unknown whether it is of class {name!r}" if everywhere else ""
                raise UserError(
                    f"data.classes: {why or f'no case is of class {name!r}'}.{did_you_mean(name, known)} "
                    f"There are {', '.join(others)}; name classes that occur"
                )

    def _held(self, labels: Labels) -> frozenset[str]:
        return labels.parts | {ANOMALOUS} if labels.label else labels.parts

    def _row(self, labels: Labels) -> list[int] | None:
        held = self._held(labels)
        row = [1 if name in held else UNKNOWN if name in labels.unknown else 0 for name in self.names]
        return row if self.multilabel or (row.count(1) == 1 and UNKNOWN not in row) else None


def _said(labels: Labels) -> str:
    doubt = f" ({JOINT.join(labels.unknown)} unknown)" if labels.unknown else ""
    return (
        JOINT.join(sorted(labels.parts) if labels.label == 0 or not labels.class_name else [labels.class_name]) + doubt
    )


def dealt(has: np.ndarray, weights: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Deal patients into parts such that each part gets its share of the patients of each class, the rarest first.

    It is the iterative stratification of Sechidis et al. (ECML 2011, algorithm 1), a class at a time.

    Args:
        has: which classes each patient has, bool [P, classes].
        weights: share of each part; they sum to 1.
        rng: determines who is in which part.

    Returns:
        The part of each patient, [P]; patients without any class are dealt last.

    Examples:
        >>> has = np.array([[True, False]] * 2 + [[False, True]] * 6)
        >>> part = dealt(has, [0.5, 0.5], np.random.default_rng(0))
        >>> np.bincount(part[:2]).tolist(), np.bincount(part[2:]).tolist()
        ([1, 1], [3, 3])
    """
    share = np.asarray(weights)
    part = np.full(len(has), -1)
    order = rng.permutation(len(has))
    for column in [*np.argsort(has.sum(0), kind="stable"), None]:
        of_class = np.ones(len(has), bool) if column is None else has[:, column]
        members = order[(of_class & (part < 0))[order]]
        if len(members):
            already = np.bincount(part[of_class & (part >= 0)], minlength=len(share))
            lacking = np.maximum(share * of_class.sum() - already, 0)
            everyone = np.bincount(part[part >= 0], minlength=len(share))
            part[members] = np.repeat(np.arange(len(share)), _whole(lacking, len(members), everyone / share))
    return part


def _whole(wanted: np.ndarray, count: int, filled: np.ndarray) -> np.ndarray:
    """Round shares to whole numbers with sum `count`, by largest remainder; of equal ones the least filled first."""
    exact = np.round(wanted * (count / wanted.sum()), 9)
    rounded = np.asarray(np.floor(exact), np.int64)
    rounded[np.lexsort((filled, rounded - exact))[: count - rounded.sum()]] += 1
    return rounded
