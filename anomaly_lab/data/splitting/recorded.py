"""The split as it was when a run began: which picture was in which split, and what the picture contained.

A run keeps it as `split.csv`, so that what is done with the run later uses the same pictures in the same splits, and
so that pictures that were added, removed or changed in the meantime are noticed.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly_lab.data.splitting.rows import divided, whole
from anomaly_lab.data.splitting.splits import SPLITS
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.lazy import LazyStore
from anomaly_lab.data.store.store import Store
from anomaly_lab.experiment.tables import open_table, restored, to_csv
from anomaly_lab.types import UserError

AnyStore = Store | LazyStore

SPLIT = "split.csv"  # in the run folder
COLUMNS = ("id", "case", "split", "digest")
_SPLITS = (*SPLITS, "")


class Entry(NamedTuple):
    """What is recorded of one row of the store.

    Attributes:
        case: the case that the row was cut from.
        split: "train", "val", "test", or "" where it is in none.
        digest: of label, role, pixels, mask and class targets; "" for a case that was listed and never stored.
    """

    case: str
    split: str
    digest: str


@dataclass(frozen=True)
class Changes:
    """How a data set differs from what a run recorded, by case id.

    Attributes:
        added: cases that were not there when the run began.
        removed: cases that are gone.
        altered: cases whose label, pixels or mask changed.

    Examples:
        >>> changes = Changes(added=("c.png", "d.png"), removed=("a.png",))
        >>> print(changes)
        2 added (c.png, …), 1 removed (a.png)
        >>> changes.counted  # names no case
        '2 added, 1 removed'
        >>> bool(Changes())
        False
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.altered))

    @property
    def counted(self) -> str:
        """The numbers alone, which may leave the machine."""
        counts = ((name, len(getattr(self, name))) for name in ("added", "removed", "altered"))
        return ", ".join(f"{number} {name}" for name, number in counts if number)

    def __str__(self) -> str:
        counts = ((name, getattr(self, name)) for name in ("added", "removed", "altered"))
        return ", ".join(
            f"{len(cases)} {name} ({cases[0]}{', …' if len(cases) > 1 else ''})" for name, cases in counts if cases
        )


class RecordedSplit:
    """The rows of a store by id, each with its case, its split and a digest of its content.

    Args:
        entries: by row id; cases that were listed but are not stored stand under their case id.

    Examples:
        >>> split = RecordedSplit({"a.png": Entry("a.png", "train", "0f"), "b.png": Entry("b.png", "", "")})
        >>> print(split.to_csv(), end="")
        id,case,split,digest
        a.png,a.png,train,0f
        b.png,b.png,,
        >>> split.stored
        {'a.png'}
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries

    @classmethod
    def of(
        cls,
        store: AnyStore,
        rows: Mapping[str, np.ndarray],
        listed: Iterable[str],
        targets: np.ndarray | None = None,
    ) -> RecordedSplit:
        """Record the splits of a store.

        Args:
            store: of the data set.
            rows: of each split.
            listed: ids of all cases of the data set, stored or not.
            targets: class targets of every row, if there are any; they are part of the digests.
        """
        index = store.index
        split = [""] * len(index)
        for name, members in whole(rows).items():
            for row in members.tolist():
                split[row] = name
        columns = (index.columns["id"], index.columns["case"], split, _with_targets(store.digests(), targets))
        entries = {id: Entry(case, name, digest) for id, case, name, digest in zip(*columns, strict=True)}
        stored = set(index.columns["case"])
        entries |= {id: Entry(id, "", "") for id in listed if id not in stored}
        return cls(entries)

    @classmethod
    def read(cls, path: Path) -> RecordedSplit | None:
        """Read `split.csv`; None where there is none, as in run folders of older versions.

        Raises:
            UserError: the file is damaged.
        """
        if not path.exists():
            return None
        try:
            with open_table(path) as file:
                table = csv.reader(file)
                if tuple(next(table, ())) != COLUMNS:
                    raise ValueError("its columns are not " + ",".join(COLUMNS))
                entries: dict[str, Entry] = {}
                for id, case, split, digest in table:
                    if id in entries or split not in _SPLITS:
                        raise ValueError(f"{id!r} {'occurs twice' if id in entries else f'is in a split {split!r}'}")
                    entries[id] = Entry(restored(case), split, digest)
                return cls({restored(id): entry for id, entry in entries.items()})
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise UserError(f"{path} is damaged ({error}); restore it from a copy of the run folder") from error

    def to_csv(self) -> str:
        """The content of `split.csv`."""
        return to_csv([COLUMNS, *((id, *entry) for id, entry in self.entries.items())])

    @property
    def listed(self) -> set[str]:
        """Ids of all cases that the data set had."""
        return {entry.case for entry in self.entries.values()}

    @property
    def stored(self) -> set[str]:
        """Ids of the cases of which pictures were kept."""
        return {entry.case for entry in self.entries.values() if entry.digest}

    def rows(self, index: Index, supervised: bool = False) -> dict[str, np.ndarray]:
        """Rows of each split in a store, ascending; rows that were not recorded are in none.

        Args:
            index: of the store.
            supervised: whether the anomalous rows of train and val have lists of their own, as in `rows_of_splits`.
        """
        split = np.array([self.entries[id].split if id in self.entries else "" for id in index.columns["id"]])
        rows = {name: np.flatnonzero(split == name) for name in SPLITS}
        return divided(rows, index.labels()) if supervised else rows

    def agrees(self, other: RecordedSplit) -> bool:
        """Return whether two splits mean the same pictures by the ids that both stored: most have the same content.

        Examples:
            >>> of = lambda digest: RecordedSplit({"a.png": Entry("a.png", "test", digest)})
            >>> of("0f").agrees(of("0f")), of("0f").agrees(of("1a")), of("0f").agrees(RecordedSplit({}))
            (True, False, False)
        """
        shared = self.entries.keys() & other.entries.keys()
        pairs = [(self.entries[id].digest, other.entries[id].digest) for id in shared]
        same = [one == another for one, another in pairs if one and another]
        return bool(same) and 2 * sum(same) >= len(same)

    def changes(
        self, listed: Iterable[str], store: AnyStore | None = None, targets: np.ndarray | None = None
    ) -> Changes:
        """Compare the data of today with the record.

        Args:
            listed: ids of all cases the data set has today.
            store: of the recorded ones among them; without it, contents are not compared.
            targets: class targets of its rows, if there are any.
        """
        before, today = self.listed, set(listed)
        altered = set() if store is None else self._altered(store, targets) & today
        return Changes(tuple(sorted(today - before)), tuple(sorted(before - today)), tuple(sorted(altered)))

    def _altered(self, store: AnyStore, targets: np.ndarray | None) -> set[str]:
        """Cases that have other rows than recorded, or rows of other content."""
        cases = dict(zip(store.index.columns["id"], store.index.columns["case"], strict=True))
        changed = self._unlike(cases, store.digests(), targets)
        if changed and isinstance(store, LazyStore):  # unless they are those of a run of an older version
            changed &= self._unlike(cases, store.former_digests(), targets)
        return changed | {case for id, case in cases.items() if id not in self.entries}

    def _unlike(self, ids: Iterable[str], digests: list[str], targets: np.ndarray | None) -> set[str]:
        """Cases that have other rows than recorded, or rows of other digests."""
        found = dict(zip(ids, _with_targets(digests, targets), strict=True))
        return {entry.case for id, entry in self.entries.items() if entry.digest and found.get(id) != entry.digest}


def _with_targets(digests: list[str], targets: np.ndarray | None) -> list[str]:
    """A digest of every row, of the store's and of its class targets; without these it is the store's."""
    if targets is None:
        return digests
    pairs = zip(digests, targets, strict=True)
    return [hashlib.sha256(digest.encode() + target.tobytes()).hexdigest()[:16] for digest, target in pairs]
