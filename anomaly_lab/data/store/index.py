"""The index of a store: the metadata of each row, stored by column to keep a million rows small."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from anomaly_lab.experiment.tables import open_table
from anomaly_lab.types import Case

COLUMNS = ("id", "case", "patient", "label", "class_name", "location", "role", "file", "sha256")


class Index:
    """Metadata of each row of a store.

    Columns: id (unique), case, patient (group key), label (0, 1), class_name (in the data set's own terms), location
    (first voxel of the window, empty for a whole picture), role ("grid" or "random"; "unmasked" for grid windows of an
    anomalous scan without a mask), file (relative to the root), sha256 (of the stored pixels; empty if pixels are not
    stored).

    Examples:
        >>> cases = [Case(id="a", patient="p1", image=Path("a.png"), label=1, class_name="fracture")]
        >>> index = Index.of_cases(cases)
        >>> len(index), index[0]["class_name"], index.labels().tolist()
        (1, 'fracture', [1])
    """

    def __init__(self, columns: dict[str, Sequence[str]]) -> None:
        self.columns = columns

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read index.csv."""
        with open_table(path) as file:
            rows = csv.reader(file)
            names = next(rows)
            known: dict[str, str] = {}  # patients, classes and files repeat: equal cells share one string
            columns: dict[str, list[str]] = {name: [] for name in names}
            appends = [columns[name].append for name in names]
            for row in rows:
                for append, cell in zip(appends, row, strict=True):
                    append(known.setdefault(cell, cell) if len(cell) < 64 else cell)
        return cls(dict(columns))

    @classmethod
    def of_cases(cls, cases: Sequence[Case]) -> Index:
        """Return the index of whole pictures that are not stored."""
        ids = [case.id for case in cases]
        empty, labels = [""] * len(ids), ("0", "1")
        return cls(
            {
                "id": ids,
                "case": ids,
                "patient": [case.patient for case in cases],
                "label": [labels[case.label] for case in cases],
                "class_name": [case.class_name for case in cases],
                "location": empty,
                "role": ["unmasked" if case.label and case.mask is None else "grid" for case in cases],
                "file": [case.image.name for case in cases],
                "sha256": empty,
            }
        )

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitem__(self, row: int) -> dict[str, str]:
        return {name: values[row] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (self[row] for row in range(len(self)))

    def labels(self) -> np.ndarray:
        """Return the label of each row, [N]: 0 normal, 1 anomalous."""
        return np.array(self.columns["label"]).astype(np.int64)

    def digests(self, contents: Iterable[bytes]) -> list[str]:
        """A digest of every row's label, role, pixels and `contents`, 16 hexadecimal digits; the same on any machine.

        Patient and file name are no part of it: they may be written otherwise where the same pictures lie elsewhere.
        """
        facts = zip(*(self.columns[name] for name in ("label", "role", "sha256")), contents, strict=True)
        return [hashlib.sha256(" ".join(fact).encode() + content).hexdigest()[:16] for *fact, content in facts]

    def has_role(self, *roles: str) -> np.ndarray:
        """Return which rows have one of these roles, bool [N]."""
        return np.isin(np.array(self.columns["role"]), roles)
