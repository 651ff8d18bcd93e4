"""Replacement for a store when pictures are too large or too many: the loader's workers read them on demand.

It has the interface of `Store`, with one patch per case.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.store.content import sampled
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.types import Batch, Case, UserError

_FIELDS = tuple(field.name for field in fields(Case))
_values = attrgetter(*_FIELDS)


@dataclass(frozen=True)
class _Images:
    """Array-like of shape [N, C, *P], indexed by rows; every access decodes the files."""

    plan: StorePlan

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.plan.cases), self.plan.in_channels, *self.plan.patch_size

    @property
    def dtype(self) -> np.dtype:
        return self.plan.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows.tolist()):
            images[place] = self._picture(self.plan.cases[row])
        return images

    def _picture(self, case: Case) -> np.ndarray:
        """Read a case that is one picture, [C, *P]."""
        cut, scan = self.plan.patches(case)
        remedy = "set data.store.enabled=true"
        if len(cut.windows.label) != 1:
            raise UserError(
                f"{case.image}: data.store.enabled=false reads whole pictures, and this scan is cut into "
                f"{len(cut.windows.label)} windows; {remedy}"
            )
        if scan.affine is None and scan.pixels.dtype.itemsize > self.dtype.itemsize:
            raise UserError(
                f"{case.image}: it has 16 bits, and data.store.enabled=false takes all pictures to have 8, as the "
                f"first one has; {remedy}"
            )
        (block, _), *_ = cut.blocks()
        picture: np.ndarray = block[0]
        return picture


class Packed(Sequence[Case]):
    """Cases in one block of memory, from which each is made anew at every access.

    They take a fifth of the memory of a list, and worker processes share it: into a Python object that it touches each
    would write a reference count, and so get a copy of its own.

    Args:
        cases: in their order.

    Examples:
        >>> cases = [Case(id=name, patient=name, image=Path(f"{name}.png"), label=0) for name in "abc"]
        >>> packed = Packed(cases)
        >>> len(packed), packed[1] == cases[1], list(packed[1:]) == cases[1:]
        (3, True, True)
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        block, ends = bytearray(), np.zeros(len(cases) + 1, np.int64)
        for number, case in enumerate(cases, start=1):
            values = (
                str(value) if name == "image" else value for name, value in zip(_FIELDS, _values(case), strict=True)
            )
            block += pickle.dumps(tuple(values), pickle.HIGHEST_PROTOCOL)
            ends[number] = len(block)
        self._block, self._ends = bytes(block), ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> Case: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Case]: ...
    def __getitem__(self, number: int | slice) -> Case | Sequence[Case]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = range(len(self))[number]
        values = dict(zip(_FIELDS, pickle.loads(self._block[self._ends[place] : self._ends[place + 1]]), strict=True))
        return Case(**(values | {"image": Path(values["image"])}))


class LazyStore:
    """Access to pictures that are read from their files instead of a store.

    Attributes:
        images: [N, C, *P], indexed by rows, uint8 or uint16, read from the files at every access.
        index: metadata of each row.
        labels: [N], 0 normal, 1 anomalous.
        masks: always None.
        skipped: always empty: a broken picture stops the run when it is read.

    Raises:
        UserError: the plan cuts scans into patches, which needs a store; or the first case is no whole picture.

    Examples:
        >>> from anomaly_lab.data.preprocessing.transforms import Preprocessing
        >>> from anomaly_lab.data.readers.scan import Scan
        >>> from anomaly_lab.types import Case
        >>> plan = StorePlan(
        ...     name="demo",
        ...     root=Path(),
        ...     cases=[Case(id="a", patient="a", image=Path("a.png"), label=1)],
        ...     read=lambda case: Scan(np.array([[[0, 255]]], np.uint8)),
        ...     preprocessing=Preprocessing(size=None),
        ...     patch_sampling=None,
        ...     patch_size=(1, 2),
        ...     in_channels=1,
        ...     deep=lambda path: False,
        ... )
        >>> LazyStore(plan, Path()).batch(np.array([0]))["image"].tolist()
        [[[[-1.0, 1.0]]]]
    """

    masks = None
    reused = False
    skipped: tuple[dict[str, str], ...] = ()

    def __init__(self, plan: StorePlan, folder: Path) -> None:
        if plan.patch_sampling is not None:
            raise UserError(
                "data.store.enabled=false reads whole pictures; remove data.cut or set data.store.enabled=true"
            )
        self.index = Index.of_cases(plan.cases)
        self.labels = np.fromiter((case.label for case in plan.cases), np.int64, len(plan.cases))
        self.plan, self.folder = replace(plan, cases=Packed(plan.cases)), folder
        self.images = _Images(self.plan)
        if plan.cases and plan.cases[0].image.is_file():
            self.images[np.array([0])]  # a volume is refused before there is a run

    @property
    def fingerprint(self) -> str:
        """Hash of the preprocessing, of the list of cases and of the content of their files; no file is decoded."""
        return self.fingerprints[0]

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprint and the one that older versions recorded, which knew nothing of the content."""
        digest = hashlib.sha256(repr((self.plan.preprocessing, self.plan.patch_size, self.plan.protocol)).encode())
        for case in self.plan.cases:
            digest.update(f"{case.id} {case.patient} {case.label} {case.class_name}".encode())
        former = digest.hexdigest()
        digest.update(self._contents.tobytes())
        return digest.hexdigest(), former

    def digests(self) -> list[str]:
        """A digest of every row's label, role and content of its file, see `Index.digests`; no file is decoded."""
        return self.index.digests(map(bytes, self._contents))

    def former_digests(self) -> list[str]:
        """The digests that older versions recorded, of label, role and file size."""
        return self.index.digests(str(case.image.stat().st_size).encode() for case in self.plan.cases)

    @cached_property
    def _contents(self) -> np.ndarray:
        """Hash of the content of every row's files, [N, 16], by samples of their bytes: all of them are opened once."""
        of_files = lru_cache(maxsize=1)(sampled)  # one file may contain many cases
        hashes = bytearray()
        for case in self.plan.cases:
            part = f"{case.frame} {case.box}".encode()
            hashes += hashlib.sha256(of_files((case.image, *case.slices)) + part).digest()[:16]
        return np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 16)

    def batch(self, rows: np.ndarray) -> Batch:
        """Read rows [B] as image in [-1, 1], label and row."""
        return Batch(
            image=to_float(self.images[rows]),
            label=torch.from_numpy(self.labels[rows]),
            row=torch.from_numpy(rows.astype(np.int64)),
        )

    def scans(self) -> Iterator[dict[str, Any]]:
        """Yield nothing: the facts of a scan are collected while a store is built."""
        return iter(())
