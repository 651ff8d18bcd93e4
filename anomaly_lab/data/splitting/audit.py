"""Leakage: patients in two splits, the same picture twice, nearly the same picture twice.

Patches of one patient resemble each other and stay in one split, so only pairs of two patients count.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store

SIDE = 16  # pictures are compared as SIDE x SIDE thumbnails
TOLERANCE = 0.02  # root-mean-square difference of two thumbnails, as a fraction of full scale
COMPARED = 5_000  # thumbnails that are compared with each other: a random sample of larger sets
MAX_LISTED_PAIRS = 200  # pairs of each kind that are named; all are counted
_ROWS_AT_ONCE = 512  # bounds the distance matrix to 512 x N


def audit(store: Store | LazyStore, rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Look for pictures and patients that occur more than once, within and across splits.

    Args:
        store: the pixels as detectors see them; pictures that are not stored are not compared.
        rows: rows of the store in each split.

    Returns:
        shared_patients, identical and near_identical pairs with their ids and splits (the latter with the distance,
        under TOLERANCE), at most MAX_LISTED_PAIRS of each, crossing (pairs that lie in two splits), checked (pictures
        compared for identity) and compared (those compared for likeness).
    """
    split = {int(row): name for name, members in rows.items() for row in members}
    everything = np.sort(np.concatenate(list(rows.values())))
    checked = everything if isinstance(store, Store) else everything[:0]
    compared = checked
    if len(checked) > COMPARED:
        compared = np.sort(np.random.default_rng(0).permutation(checked)[:COMPARED])
    same = _identical(store, checked)
    near = [] if isinstance(store, LazyStore) else _near(store, compared)
    near = [(i, j, d) for i, j, d in near if (i, j) not in same]

    def pair(first: int, second: int) -> dict[str, Any]:
        both = (first, second)
        return {"ids": [store.index.columns["id"][i] for i in both], "splits": [split[i] for i in both]}

    def crossing_first(i: int, j: int) -> tuple[bool, int, int]:
        return split[i] == split[j], i, j

    return {
        "shared_patients": _shared_patients(store, rows)[:MAX_LISTED_PAIRS],
        "identical": [pair(*both) for both in sorted(same, key=lambda both: crossing_first(*both))[:MAX_LISTED_PAIRS]],
        "near_identical": [pair(i, j) | {"distance": round(d, 4)} for i, j, d in near[:MAX_LISTED_PAIRS]],
        "crossing": sum(split[i] != split[j] for i, j in [*same, *((i, j) for i, j, _ in near)]),
        "checked": len(checked),
        "compared": len(compared),
    }


def _shared_patients(store: Store | LazyStore, rows: dict[str, np.ndarray]) -> list[str]:
    patients = np.array(store.index.columns["patient"])
    sides = [set(np.unique(patients[members]).tolist()) for members in rows.values()]
    return sorted(set().union(*(one & other for one, other in combinations(sides, 2))))


def _identical(store: Store | LazyStore, rows: np.ndarray) -> set[tuple[int, int]]:
    """Pairs (first < second); of more than two equal pictures the first with each of the others."""
    hashes, patients = store.index.columns["sha256"], store.index.columns["patient"]
    groups = defaultdict(list)
    for row in rows.tolist():
        groups[hashes[row]].append(row)
    pairs = ((group[0], other) for group in groups.values() for other in group[1:])
    return {(i, j) for i, j in pairs if patients[i] != patients[j]}


def _near(store: Store, rows: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs (first < second, distance) closer than TOLERANCE, nearest first; of many only a few of each row."""
    chunks = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    if not chunks:
        return []
    thumbnails = np.concatenate([_thumbnails(store, chunk) for chunk in chunks])
    patients = np.unique(np.array(store.index.columns["patient"])[rows], return_inverse=True)[1]
    squares = (thumbnails**2).mean(1)
    pairs = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        products = thumbnails[some] @ thumbnails[start:].T / thumbnails.shape[1]
        distance = np.sqrt(np.maximum(squares[some, None] + squares[start:] - 2 * products, 0))
        close = (distance < TOLERANCE) & (patients[some, None] != patients[start:])
        for i, j in np.argwhere(np.triu(close, 1))[: 50 * _ROWS_AT_ONCE]:
            pairs.append((int(rows[start + i]), int(rows[start + j]), float(distance[i, j])))
    return sorted(pairs, key=lambda found: found[2])


def _thumbnails(store: Store, rows: np.ndarray) -> np.ndarray:
    """[B, F] in [0, 1]; a volume's patch is squeezed along its first axis too."""
    from torch.nn.functional import adaptive_avg_pool2d

    image = (to_float(store.images[rows]) + 1) / 2
    if image.ndim == 5:
        image = image.mean(2)
    return adaptive_avg_pool2d(image, (SIDE, SIDE)).flatten(1).double().numpy()
