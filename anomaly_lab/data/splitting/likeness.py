"""Likeness of pictures: are files that follow each other slices of one patient, do judged ones resemble trained ones?

Two pictures are as alike as small versions of them correlate (Pearson), whatever their brightness and contrast. That
neighbours in a listing belong together is tested by permuting the order of the patients, exact for any set in which the
order means nothing. They are compared with files 10 to 20 places apart, not with all, so that a set sorted by hospital
or year, in which whole stretches are alike, raises no alarm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

SIDE = 32  # pictures are compared as SIDE x SIDE versions of them
FAR = (10, 12, 14, 16, 18, 20)  # places between two files that are of one origin, but hardly of one patient
LAGS = (1, 2, 3, 5, *FAR, 30, 40, 60)  # places apart, of the curve
FEWEST = 30  # patients, of whom neighbours can be compared with others
ALIKE = 0.95  # share of the far pairs that are less alike than a pair that is called alike
NEARLY_IDENTICAL = 0.98  # likeness above which a picture and the one most like it are of one patient
REPLICATES = 1999  # permutations of the order
ALARM_P, ALARM_SHARE = 0.001, 0.1  # false alarms in sets without order; share of alike neighbours that matters
MAX_COMPARED = 1024  # patients whose neighbours are compared: of more, runs of RUN that follow each other
RUN = 128
_AT_ONCE = 512  # rows of a matrix of likenesses


class Neighbours(NamedTuple):
    """How alike neighbours in the listing are.

    Attributes:
        pairs: number of pairs of neighbours that were compared.
        alike: how many of them are more alike than 95 % of the pairs far apart.
        threshold: likeness that 95 % of the pairs far apart do not reach.
        p: probability of a difference between near and far pairs as large as this one, if order meant nothing.
        curve: for numbers of places apart, the quartiles of likeness.
    """

    pairs: int
    alike: int
    threshold: float
    p: float
    curve: list[dict[str, float]]

    @property
    def belong_together(self) -> bool:
        """Whether neighbours are more alike than chance can explain, and not by a trifle."""
        return self.p <= ALARM_P and self.alike >= ALARM_SHARE * self.pairs


def standardised(images: Tensor) -> np.ndarray:
    """Return small versions whose inner products are likenesses, float32 [B, F]; those of a uniform picture are 0.

    Args:
        images: [B, C, *S]; volumes are averaged along their first spatial axis.

    Examples:
        >>> import torch
        >>> image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> small = standardised(torch.cat([image, 3 * image - 1, -image]))
        >>> (small @ small.T).round(3).tolist()[0]
        [1.0, 1.0, -1.0]
    """
    from torch.nn.functional import adaptive_avg_pool2d

    flat = images.float().mean(2) if images.ndim == 5 else images.float()
    small = adaptive_avg_pool2d(flat, (SIDE, SIDE)).flatten(1).double()
    small = small - small.mean(1, keepdim=True)
    norm = small.norm(dim=1, keepdim=True)
    return np.asarray((small / norm.clamp_min(1e-6)).float().numpy())


def runs(n: int) -> list[range]:
    """Return the stretches of a listing of n that are compared: all of it, or evenly spaced ones of RUN.

    Examples:
        >>> runs(100), len(runs(10**6)), len(runs(10**6)[3])
        ([range(0, 100)], 8, 128)
    """
    if n <= MAX_COMPARED:
        return [range(n)]
    starts = np.linspace(0, n - RUN, MAX_COMPARED // RUN).astype(int).tolist()
    return [range(start, start + RUN) for start in starts]


def neighbours(pictures: np.ndarray, stretches: Sequence[range] | None = None) -> Neighbours | None:
    """Compare neighbours with files far apart; None if there are fewer than FEWEST.

    Args:
        pictures: what `standardised` returns, one of each patient in the order of the listing, [n, F].
        stretches: parts of the listing that the rows stand for, as `runs` returns them; None if it is all of it.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> heads = np.repeat(rng.standard_normal((25, 64)), 4, axis=0)  # 25 patients with four slices each
        >>> slices = heads + rng.standard_normal(heads.shape)
        >>> def unit(x):
        ...     return x / np.linalg.norm(x, axis=1, keepdims=True)
        >>> found = neighbours(unit(slices))
        >>> found.pairs, found.alike > 60, found.p
        (99, True, 0.0005)
        >>> neighbours(unit(rng.standard_normal((100, 64)))).belong_together
        False
    """
    lengths = [len(pictures)] if stretches is None else [len(stretch) for stretch in stretches]
    if max(lengths) < FEWEST:
        return None
    likeness = pictures @ pictures.T
    starts = np.cumsum([0, *lengths[:-1]])
    places = {
        lag: np.concatenate(
            [start + np.arange(max(0, length - lag)) for start, length in zip(starts, lengths, strict=True)]
        )
        for lag in LAGS
    }
    at = {lag: likeness[first, first + lag] for lag, first in places.items() if len(first)}
    far = np.concatenate([at[lag] for lag in FAR if lag in at])
    threshold = float(np.quantile(far, ALIKE))
    left = np.concatenate([places[lag] for lag in FAR])
    right = np.concatenate([places[lag] + lag for lag in FAR])

    def contrast(order: np.ndarray) -> float:
        near = likeness[order[places[1]], order[places[1] + 1]].mean(dtype=np.float64)
        return float(near - likeness[order[left], order[right]].mean(dtype=np.float64))

    rng, n = np.random.default_rng(0), len(pictures)
    observed = contrast(np.arange(n))
    as_large = sum(contrast(rng.permutation(n)) >= observed for _ in range(REPLICATES))
    curve = [
        {"apart": lag, "low": low, "median": median, "high": high}
        for lag, values in at.items()
        for low, median, high in [np.quantile(values, (0.25, 0.5, 0.75)).round(4).tolist()]
    ]
    p = (1 + as_large) / (1 + REPLICATES)
    return Neighbours(len(at[1]), int((at[1] > threshold).sum()), threshold, p, curve)


def nearest(judged: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the most alike trained picture of each judged one, and its likeness, [m] each.

    Args:
        judged, trained: what `standardised` returns, [m, F] and [n, F], n > 0.

    Examples:
        >>> pictures = np.eye(3, dtype=np.float32)
        >>> [part.tolist() for part in nearest(pictures[:1], pictures)]
        [[0], [1.0]]
    """
    parts = [judged[i : i + _AT_ONCE] @ trained.T for i in range(0, len(judged), _AT_ONCE)]
    which = np.concatenate([part.argmax(1) for part in parts] or [np.empty(0, np.int64)])
    return which, np.concatenate([part.max(1) for part in parts] or [np.empty(0, np.float32)])


class Grouping(NamedTuple):
    """Patients after those whose pictures are alike have been joined.

    Attributes:
        patients: of every case, in their order; joined ones are named after the first and the last of their cases.
        facts: rule, threshold and the cases of each group of two or more patients, serializable as JSON.
    """

    patients: list[str]
    facts: dict[str, Any]


def grouped(
    pictures: Mapping[str, np.ndarray], ids: Sequence[str], labels: Sequence[int], patients: Sequence[str]
) -> Grouping:
    """Join patients whose pictures are alike.

    Of the normals, and of the anomalous cases, in the order of the listing, two that follow each other are joined if
    they are more alike than 95 % of the pairs 10 to 20 places apart; but only if neighbours of their class are more
    alike than chance can explain (`Neighbours.belong_together`). A picture and the one that is most like it are joined
    wherever they lie, if they are nearly identical.

    Args:
        pictures: of each case what `standardised` returns, [F]; a case without one stays as it is.
        ids, labels, patients: of every case, in the order of the listing.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> heads = np.repeat(rng.standard_normal((25, 64)), 4, axis=0)  # 25 patients with four slices each
        >>> slices = heads + 0.5 * rng.standard_normal(heads.shape)
        >>> names = [f"{number:03d}" for number in range(100)]
        >>> pictures = dict(zip(names, slices / np.linalg.norm(slices, axis=1, keepdims=True), strict=True))
        >>> grouped(pictures, names, [0] * 100, names).patients[:6]
        ['000..003', '000..003', '000..003', '000..003', '004..007', '004..007']
    """
    joined = _Joined(patients)
    known = [case for case, id in enumerate(ids) if id in pictures]
    thresholds: dict[str, float] = {}
    for label, name in ((0, "normal"), (1, "anomalous")):
        members = [case for case in known if labels[case] == label]
        if members and (limit := _limit(pictures, ids, patients, members)) is not None:
            thresholds[name] = round(limit, 4)
            small = np.stack([pictures[ids[case]] for case in members])
            for place in np.flatnonzero((small[1:] * small[:-1]).sum(1) > limit).tolist():
                joined.join(patients[members[place]], patients[members[place + 1]])
    for first, second in _nearly_identical(np.stack([pictures[ids[case]] for case in known])) if known else []:
        joined.join(patients[known[first]], patients[known[second]])
    groups: dict[str, list[int]] = defaultdict(list)
    for case, patient in enumerate(patients):
        groups[joined.root(patient)].append(case)
    names, listed = list(patients), []
    for members in groups.values():
        if len({patients[case] for case in members}) > 1:
            listed.append([ids[case] for case in members])
            for case in members:
                names[case] = f"{ids[members[0]]}..{ids[members[-1]]}"
    rule = (
        "neighbours in the listing, of one class, that are more alike than 95 % of the pairs 10 to 20 places apart, if "
        f"a permutation test finds neighbours alike; and a picture with the one most like it, above {NEARLY_IDENTICAL}"
    )
    return Grouping(names, {"rule": rule, "thresholds": thresholds, "groups": listed, "patients": len(groups)})


class _Joined:
    """Disjoint sets of patients."""

    def __init__(self, patients: Sequence[str]) -> None:
        self.parent = {patient: patient for patient in patients}

    def root(self, patient: str) -> str:
        """Return the patient that stands for all who are joined with this one."""
        while self.parent[patient] != patient:
            self.parent[patient] = patient = self.parent[self.parent[patient]]
        return patient

    def join(self, first: str, second: str) -> None:
        """Make one set of the sets of two patients."""
        one, other = self.root(first), self.root(second)
        self.parent[max(one, other)] = min(one, other)


def _limit(
    pictures: Mapping[str, np.ndarray], ids: Sequence[str], patients: Sequence[str], members: Sequence[int]
) -> float | None:
    """Return the likeness above which neighbours belong together; None if they do not."""
    firsts = list({patients[case]: case for case in reversed(members)}.values())[::-1]  # one case of each patient
    stretches = runs(len(firsts))
    chosen = [firsts[place] for stretch in stretches for place in stretch]
    found = neighbours(np.stack([pictures[ids[case]] for case in chosen]), stretches)
    return found.threshold if found is not None and found.belong_together else None


def _nearly_identical(pictures: np.ndarray) -> list[tuple[int, int]]:
    """Return each picture [n, F] with the one that is most like it, where the two are nearly identical.

    Not all pairs: where many are alike, as digits are, all of them would be linked by a chain.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(pictures), _AT_ONCE):
        like = pictures[start : start + _AT_ONCE] @ pictures.T
        like[np.arange(len(like)), start + np.arange(len(like))] = -1
        most = like.argmax(1)
        close = np.flatnonzero(like.max(1) > NEARLY_IDENTICAL)
        pairs += [(start + i, int(most[i])) for i in close.tolist()]
    return pairs
