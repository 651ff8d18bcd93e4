"""Rules on names, which no detector sees: each public function turns all cases' names into a number for each.

They tell that classes were collected or numbered one after the other, so that whatever changed with time differs, too.
A new rule is a new function. The first line of its docstring is its name on the pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OURS = r"patient \d+"  # what patients are called whose own names are not to be kept, in the order of a list


class Names(NamedTuple):
    """Names of N cases.

    Attributes:
        file: names of their files, without folders; empty where a file holds several cases.
        patient: their patients.
        written: when their files were written, seconds; NaN if unknown.
    """

    file: Sequence[str]
    patient: Sequence[str]
    written: Floats


def file_number(names: Names) -> Floats:
    """Number in file name."""
    return _numbers([name.rsplit(".", 1)[0] for name in names.file])


def patient_number(names: Names) -> Floats:
    """Patient number."""
    given = _numbers(names.patient)
    ours = np.array([re.fullmatch(OURS, name) is not None for name in names.patient])
    return np.where(ours, np.nan, given)


def place(names: Names) -> Floats:
    """Order of the names."""
    ranks = _ranks([_natural(name) for name in names.file])
    return np.where([name == "" for name in names.file], np.nan, ranks)


def date(names: Names) -> Floats:
    """Date of the file."""
    return names.written


def _numbers(texts: Sequence[str]) -> Floats:
    """Rank the numbers in texts that are equal but for them; NaN for texts that are not like most.

    "n001" and "p001" are not compared: that the classes have names of their own is no news.

    Examples:
        >>> _numbers(["scan 10", "scan 9", "film 3"]).tolist()
        [1.0, 0.0, nan]
    """
    patterns = [re.sub(r"\d+", "#", text) for text in texts]
    (commonest, _), *_ = Counter(patterns).most_common(1)
    alike = [i for i, pattern in enumerate(patterns) if pattern == commonest and "#" in pattern]
    ranks = np.full(len(texts), np.nan)
    ranks[alike] = _ranks([tuple(int(number) for number in re.findall(r"\d+", texts[i])) for i in alike])
    return ranks


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts numbers by their values: "b9" before "b10"."""
    parts = re.findall(r"\d+|\D+", text.lower())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _ranks(keys: Sequence[tuple[object, ...]]) -> Floats:
    """Return the place of each key among the different ones, from 0."""
    order = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return np.array([order[key] for key in keys], np.float64)
