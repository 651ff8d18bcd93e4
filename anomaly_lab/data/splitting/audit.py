"""Audit for data leakage: patients in two splits, identical and nearly identical pictures, and pictures that are alike.

Patches of one patient resemble each other and stay in one split, so only pairs from two different patients count.
Likeness is that of `likeness.standardised`. It is measured from every judged picture to the most alike one that trains,
and along the listing, because files that follow each other may be slices of one patient whom nothing else names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.splitting import likeness
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store
from anomaly_lab.metrics.comparison import auroc_interval
from anomaly_lab.metrics.ranking import auroc

SIDE = 16  # pictures are compared as SIDE x SIDE thumbnails
TOLERANCE = 0.02  # root-mean-square difference of two thumbnails, as a fraction of full scale
COMPARED = 5_000  # largest number of thumbnails compared with each other; of larger sets a random sample
MAX_LISTED_PAIRS = 200  # pairs listed of each kind; all are counted
TRAINED, JUDGED = (
    4000,
    1000,
)  # largest number of pictures that train, and of each kind judged, whose likeness is measured
WORST = 6  # pairs that are shown
_FEWEST = 5  # patients of a class, from which an AUROC has an interval
_READ_AT_ONCE = 64  # pictures in memory
_ROWS_AT_ONCE = 512  # limits the distance matrix to 512 x N


def audit(
    store: Store | LazyStore, rows: dict[str, np.ndarray], declared: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Find pictures and patients that occur more than once, within and across splits.

    Args:
        store: the pixels as detectors see them; pictures of a `LazyStore` are not compared.
        rows: rows of the store in each split.
        declared: the patient of every case as the data set names them, if the store's have been joined since.

    Returns:
        A dictionary with

        - shared_patients: patients in two splits;
        - identical, near_identical: pairs with their ids and splits, the latter with a distance below TOLERANCE;
          at most MAX_LISTED_PAIRS of each;
        - contradicting: those of the identical pairs of which one is labelled normal and one anomalous;
        - crossing: number of pairs whose members are in two splits;
        - checked, compared: number of pictures searched for identical and for nearly identical ones;
        - likeness: None without stored pictures, else `nearest`, the likeness of judged pictures to the most alike one
          that trains, "auroc" of that distance alone, `worst` pairs, and `neighbours` in the listing, with `leaking`,
          the number of judged normals of whom a neighbour trains and is as alike as hardly any pair far apart.

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
    owner = _owners(store, declared)
    same = _identical(store, checked, owner)
    near = [] if isinstance(store, LazyStore) else _near(store, compared, owner)
    near = [(i, j, d) for i, j, d in near if (i, j) not in same]

    def describe(*members: int) -> dict[str, Any]:
        return {"ids": [store.index.columns["id"][i] for i in members], "splits": [names[number[i]] for i in members]}

    def crossing_first(pair: tuple[int, int]) -> tuple[bool, int, int]:
        return bool(number[pair[0]] == number[pair[1]]), *pair

    return {
        "shared_patients": _shared_patients(store, rows)[:MAX_LISTED_PAIRS],
        "identical": [describe(*pair) for pair in sorted(same, key=crossing_first)[:MAX_LISTED_PAIRS]],
        "contradicting": [describe(*pair) for pair in sorted(same) if store.labels[pair[0]] != store.labels[pair[1]]][
            :MAX_LISTED_PAIRS
        ],
        "near_identical": [describe(i, j) | {"distance": round(d, 4)} for i, j, d in near[:MAX_LISTED_PAIRS]],
        "crossing": sum(int(number[i] != number[j]) for i, j in [*same, *((i, j) for i, j, _ in near)]),
        "checked": len(checked),
        "compared": len(compared),
        "likeness": _likeness(store, rows, owner) if isinstance(store, Store) else None,
    }


def leaks(found: Mapping[str, Any], grouped: bool = False) -> list[str]:
    """Return a sentence of alarm where neighbours in the listing look like one patient and are in different splits.

    Args:
        found: what `audit` returns.
        grouped: whether `data.group=likeness` has already joined those that are most alike.

    Examples:
        >>> neighbours = {"pairs": 99, "alike": 52, "p": 0.0005, "together": True, "judged": 25, "leaking": 13}
        >>> leaks({"likeness": {"neighbours": neighbours}})[0][:68]
        'Neighbouring files look like pictures of one patient: of 99 normals,'
    """
    near = (found.get("likeness") or {}).get("neighbours")
    if not near or not near["together"] or not near["leaking"]:
        return []
    whole = "keeps such files together, where patients do not cross splits"
    remedy = "has joined the others" if grouped else whole
    return [
        f"Neighbouring files look like pictures of one patient: of {near['pairs']} normals, {near['alike']} are more "
        f"like the next than 95 % of those far apart are (by chance: {near['pairs'] / 20:.0f}; p = {near['p']:g}), and "
        f"{near['leaking']} of {near['judged']} judged normals have such a neighbour that trains. Figures are better "
        f"than on new patients; data.group=likeness {remedy}."
    ]


def _owners(store: Store | LazyStore, declared: Mapping[str, str] | None) -> np.ndarray:
    """Return the patient of every row as the data set names them: pictures that were joined are still two."""
    columns = store.index.columns
    return np.array(columns["patient"] if declared is None else [declared[case] for case in columns["case"]])


def _likeness(store: Store, rows: Mapping[str, np.ndarray], owner: np.ndarray) -> dict[str, Any]:
    """Return how alike judged pictures are to those that train, and neighbours to each other."""
    ids, patients = np.array(store.index.columns["id"]), np.array(store.index.columns["patient"])
    trained = _some(rows.get("train", np.empty(0, np.int64)), TRAINED)
    kinds = {"val": rows.get("val", np.empty(0, np.int64))}
    test = rows.get("test", np.empty(0, np.int64))
    kinds |= {"test_normal": test[store.labels[test] == 0], "test_anomalous": test[store.labels[test] == 1]}
    result: dict[str, Any] = {"nearest": {}, "auroc": None, "worst": [], "neighbours": None}
    if len(trained):
        pictures, highest = _small(store, trained), dict[str, np.ndarray]()
        pairs: list[tuple[float, int, int, str]] = []
        for kind, members in kinds.items():
            judged = _some(members, JUDGED)
            which, highest[kind] = likeness.nearest(_small(store, judged), pictures)
            kinds[kind] = judged
            if len(judged):
                low, median, high = np.quantile(highest[kind], (0.05, 0.5, 0.95)).round(4).tolist()
                result["nearest"][kind] = {"count": len(judged), "low": low, "median": median, "high": high}
            if kind != "test_anomalous":
                split = kind.partition("_")[0]
                pairs += zip(
                    highest[kind].tolist(), judged.tolist(), trained[which].tolist(), [split] * len(judged), strict=True
                )
        result["worst"] = [
            {"ids": [str(ids[i]), str(ids[j])], "splits": [split, "train"], "likeness": round(value, 4)}
            for value, i, j, split in sorted(pairs, reverse=True)[:WORST]
        ]
        result["auroc"] = _told_by_distance(highest, kinds, patients)
    result["neighbours"] = _neighbours(store, rows, owner)
    return result


def _told_by_distance(
    highest: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], patients: np.ndarray
) -> dict[str, float | None] | None:
    """Return the AUROC of the distance to the most alike picture that trains, with its interval by patient."""
    kinds = ("test_normal", "test_anomalous")
    if not all(len(rows[kind]) for kind in kinds):
        return None
    label = np.repeat([0, 1], [len(rows[kind]) for kind in kinds])
    score = -np.concatenate([highest[kind] for kind in kinds]).astype(np.float64)
    patient = patients[np.concatenate([rows[kind] for kind in kinds])]
    low = high = None
    if min(len(np.unique(patients[rows[kind]])) for kind in kinds) >= _FEWEST:
        low, high = (round(end, 4) for end in auroc_interval(label, score, patient))
    return {"value": round(auroc(label, score), 4), "low": low, "high": high}


def _neighbours(store: Store, rows: Mapping[str, np.ndarray], owner: np.ndarray) -> dict[str, Any] | None:
    """Compare normal patients who follow each other in the listing; None if there are too few."""
    normal = np.flatnonzero((store.labels == 0) & ~store.index.has_role("random"))
    _, first, number = np.unique(owner[normal], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[number]  # of each normal row's patient in the listing
    order = np.argsort(place, kind="stable")
    begins = np.searchsorted(place[order], np.arange(len(first)))
    ends = np.append(begins[1:], len(order))
    shown = normal[order[(begins + ends - 1) // 2]]  # the middle one of a patient's pictures
    stretches = likeness.runs(len(shown))
    chosen = np.concatenate([shown[stretch.start : stretch.stop] for stretch in stretches])
    found = likeness.neighbours(_small(store, chosen), stretches)
    if found is None:
        return None
    trains, judged = (
        np.unique(place[np.isin(normal, rows.get(name, np.empty(0, np.int64)))]) for name in ("train", "test")
    )
    judged = _some(judged, JUDGED)
    beside = np.concatenate([np.stack([judged, judged + step]) for step in (-1, 1)], axis=1)
    beside = beside[:, np.isin(beside[1], trains)]
    like = (_small(store, shown[beside[0]]) * _small(store, shown[beside[1]])).sum(1)
    leaking = len(np.unique(beside[0][like > found.threshold]))
    return {
        "pairs": found.pairs,
        "alike": found.alike,
        "threshold": round(found.threshold, 4),
        "p": found.p,
        "together": found.belong_together,
        "judged": len(judged),
        "leaking": leaking,
        "curve": found.curve,
    }


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """Return the rows, or a random sample of them that is always the same."""
    return rows if len(rows) <= most else np.sort(np.random.default_rng(0).permutation(rows)[:most])


def _small(store: Store, rows: np.ndarray) -> np.ndarray:
    """Return the small versions of pictures whose inner products are likenesses, [n, F]."""
    chunks = (rows[i : i + _READ_AT_ONCE] for i in range(0, len(rows), _READ_AT_ONCE))
    parts = [likeness.standardised(to_float(store.images[chunk])) for chunk in chunks]
    return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)


def _shared_patients(store: Store | LazyStore, rows: dict[str, np.ndarray]) -> list[str]:
    patients = np.array(store.index.columns["patient"])
    patients_of = [set(np.unique(patients[members]).tolist()) for members in rows.values()]
    return sorted(set().union(*(first & second for first, second in combinations(patients_of, 2))))


def _identical(store: Store | LazyStore, rows: np.ndarray, owner: np.ndarray) -> set[tuple[int, int]]:
    """Return pairs of rows (first < second); of more than two equal pictures, the first with each of the others."""
    hashes = store.index.columns["sha256"]
    groups = defaultdict(list)
    for row in rows.tolist():
        groups[hashes[row]].append(row)
    pairs = ((group[0], other) for group in groups.values() for other in group[1:])
    return {(i, j) for i, j in pairs if owner[i] != owner[j]}


def _near(store: Store, rows: np.ndarray, owner: np.ndarray) -> list[tuple[int, int, float]]:
    """Return pairs (first < second, distance) closer than TOLERANCE, nearest first; very long lists are cut."""
    chunks = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    if not chunks:
        return []
    thumbnails = np.concatenate([_thumbnails(store, chunk) for chunk in chunks])
    patients = np.unique(owner[rows], return_inverse=True)[1]
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
