"""Leakage: patients in two splits, the same picture twice, nearly the same picture twice."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np

from anomaly_lab.data.store import Store
from anomaly_lab.data.transforms import to_float

SIDE = 16  # pictures are compared as SIDE x SIDE thumbnails
TOLERANCE = 0.02  # root-mean-square difference of two thumbnails, as a fraction of full scale
_ROWS_AT_ONCE = 512  # bounds the distance matrix to 512 x N


def audit(store: Store, rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Look for pictures and patients that occur more than once, within and across splits.

    Args:
        store: the pixels as detectors see them.
        rows: rows of the store in each split.

    Returns:
        shared_patients, identical and near_identical pairs with their ids and splits (the latter with the
        distance, under TOLERANCE), crossing (pairs that lie in two splits) and checked (pictures compared).
    """
    checked = np.concatenate(list(rows.values()))
    split = {int(row): name for name, members in rows.items() for row in members}
    checked.sort()

    def pair(first: int, second: int) -> dict[str, Any]:
        both = (first, second)
        return {"ids": [store.index[i]["id"] for i in both], "splits": [split[i] for i in both]}

    same = _identical(store, checked)
    near = [(i, j, d) for i, j, d in _near(store, checked) if (i, j) not in same]
    return {
        "shared_patients": _shared_patients(store, split),
        "identical": [pair(*both) for both in sorted(same)],
        "near_identical": [pair(i, j) | {"distance": round(d, 4)} for i, j, d in near],
        "crossing": sum(split[i] != split[j] for i, j in [*same, *((i, j) for i, j, _ in near)]),
        "checked": len(checked),
    }


def _shared_patients(store: Store, split: dict[int, str]) -> list[str]:
    sides = defaultdict(set)
    for row, name in split.items():
        sides[store.index[row]["patient"]].add(name)
    return sorted(patient for patient, names in sides.items() if len(names) > 1)


def _identical(store: Store, rows: np.ndarray) -> set[tuple[int, int]]:
    groups = defaultdict(list)
    for row in rows.tolist():
        groups[store.index[row]["sha256"]].append(row)
    return {both for group in groups.values() for both in combinations(group, 2)}


def _near(store: Store, rows: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs (first < second, distance) closer than TOLERANCE, nearest first."""
    chunks = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    thumbnails = np.concatenate([_thumbnails(store, chunk) for chunk in chunks])
    squares = (thumbnails**2).mean(1)
    pairs = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        products = thumbnails[some] @ thumbnails.T / thumbnails.shape[1]
        distance = np.sqrt(np.maximum(squares[some, None] + squares - 2 * products, 0))
        for i, j in np.argwhere(distance < TOLERANCE):
            if start + i < j:
                pairs.append((int(rows[start + i]), int(rows[j]), float(distance[i, j])))
    return sorted(pairs, key=lambda found: found[2])


def _thumbnails(store: Store, rows: np.ndarray) -> np.ndarray:
    """[B, F] in [0, 1]."""
    from torch.nn.functional import adaptive_avg_pool2d

    image = (to_float(store.images[rows]) + 1) / 2
    return adaptive_avg_pool2d(image, (SIDE, SIDE)).flatten(1).double().numpy()
