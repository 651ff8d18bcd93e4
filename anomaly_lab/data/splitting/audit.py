"""Audit for data leakage: patients in two splits, identical pictures, nearly identical pictures.

Patches of one patient resemble each other and stay in one split, so only pairs from two different patients count.
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
COMPARED = 5_000  # largest number of thumbnails compared with each other; of larger sets a random sample
MAX_LISTED_PAIRS = 200  # pairs listed of each kind; all are counted
_ROWS_AT_ONCE = 512  # limits the distance matrix to 512 x N


def audit(store: Store | LazyStore, rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Find pictures and patients that occur more than once, within and across splits.

    Args:
        store: the pixels as detectors see them; pictures of a `LazyStore` are not compared.
        rows: rows of the store in each split.

    Returns:
        A dictionary with

        - shared_patients: patients in two splits;
        - identical, near_identical: pairs with their ids and splits, the latter with a distance below TOLERANCE;
          at most MAX_LISTED_PAIRS of each;
        - crossing: number of pairs whose members are in two splits;
        - checked, compared: number of pictures searched for identical and for nearly identical ones.

    Examples:
        >>> import tempfile
        >>> from anomaly_lab.data.datamodule import StoreOptions, Twin
        >>> from anomaly_lab.data.datasets.folder import Folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = Folder(root="none", source="twin", twin=Twin(size=20), store=StoreOptions(folder=folder))
        ...     data.setup()
        ...     report = audit(data.store, data.rows)
        >>> report["checked"], report["identical"], report["crossing"]  # no picture leaks
        (20, [], 0)
    """
    names, number = list(rows), np.zeros(len(store.index), np.int8)
    for i, members in enumerate(rows.values()):
        number[members] = i
    all_rows = np.sort(np.concatenate(list(rows.values())))
    checked = all_rows if isinstance(store, Store) else all_rows[:0]
    compared = checked
    if len(checked) > COMPARED:
        compared = np.sort(np.random.default_rng(0).permutation(checked)[:COMPARED])
    same = _identical(store, checked)
    near = [] if isinstance(store, LazyStore) else _near(store, compared)
    near = [(i, j, d) for i, j, d in near if (i, j) not in same]

    def describe(*members: int) -> dict[str, Any]:
        return {"ids": [store.index.columns["id"][i] for i in members], "splits": [names[number[i]] for i in members]}

    def crossing_first(pair: tuple[int, int]) -> tuple[bool, int, int]:
        return bool(number[pair[0]] == number[pair[1]]), *pair

    return {
        "shared_patients": _shared_patients(store, rows)[:MAX_LISTED_PAIRS],
        "identical": [describe(*pair) for pair in sorted(same, key=crossing_first)[:MAX_LISTED_PAIRS]],
        "near_identical": [describe(i, j) | {"distance": round(d, 4)} for i, j, d in near[:MAX_LISTED_PAIRS]],
        "crossing": sum(int(number[i] != number[j]) for i, j in [*same, *((i, j) for i, j, _ in near)]),
        "checked": len(checked),
        "compared": len(compared),
    }


def _shared_patients(store: Store | LazyStore, rows: dict[str, np.ndarray]) -> list[str]:
    patients = np.array(store.index.columns["patient"])
    patients_of = [set(np.unique(patients[members]).tolist()) for members in rows.values()]
    return sorted(set().union(*(first & second for first, second in combinations(patients_of, 2))))


def _identical(store: Store | LazyStore, rows: np.ndarray) -> set[tuple[int, int]]:
    """Return pairs of rows (first < second); of more than two equal pictures, the first with each of the others."""
    hashes, patients = store.index.columns["sha256"], store.index.columns["patient"]
    groups = defaultdict(list)
    for row in rows.tolist():
        groups[hashes[row]].append(row)
    pairs = ((group[0], other) for group in groups.values() for other in group[1:])
    return {(i, j) for i, j in pairs if patients[i] != patients[j]}


def _near(store: Store, rows: np.ndarray) -> list[tuple[int, int, float]]:
    """Return pairs (first < second, distance) closer than TOLERANCE, nearest first; very long lists are cut."""
    chunks = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    if not chunks:
        return []
    thumbnails = np.concatenate([_thumbnails(store, chunk) for chunk in chunks])
    patients = np.unique(np.array(store.index.columns["patient"])[rows], return_inverse=True)[1]
    squares = (thumbnails**2).mean(1)
    pairs = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        products = thumbnails[block] @ thumbnails[start:].T / thumbnails.shape[1]
        distance = np.sqrt(np.maximum(squares[block, None] + squares[start:] - 2 * products, 0))
        close = (distance < TOLERANCE) & (patients[block, None] != patients[start:])
        for i, j in np.argwhere(np.triu(close, 1))[: 50 * _ROWS_AT_ONCE]:
            pairs.append((int(rows[start + i]), int(rows[start + j]), float(distance[i, j])))
    return sorted(pairs, key=lambda pair: pair[2])


def _thumbnails(store: Store, rows: np.ndarray) -> np.ndarray:
    """Return thumbnails [B, F] in [0, 1]; a patch of a volume is averaged along its first spatial axis."""
    from torch.nn.functional import adaptive_avg_pool2d

    image = (to_float(store.images[rows]) + 1) / 2
    if image.ndim == 5:
        image = image.mean(2)
    return adaptive_avg_pool2d(image, (SIDE, SIDE)).flatten(1).double().numpy()
