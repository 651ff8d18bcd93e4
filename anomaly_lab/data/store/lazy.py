"""Pictures that are too large or too many to store: read when they are asked for, by the loader's workers.

The same interface as a Store, one patch a case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.types import Batch, UserError


@dataclass(frozen=True)
class _Images:
    """Reads as an array [N, C, *P] does, by rows; every access decodes the files."""

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
            (block, _), *_ = self.plan.patches(self.plan.cases[row])[0].blocks()
            images[place] = block[0]
        return images


class LazyStore:
    """Stands for a store that is not built.

    Attributes:
        images: [N, C, *P] by rows, uint8 or uint16, read anew at every access.
        index: facts of each row.
        labels: [N], 0 normal, 1 anomalous.
        masks: none.
        skipped: none: a broken picture stops the run when it is met.

    Raises:
        UserError: patches would have to be cut, which a store is for.
    """

    masks = None
    reused = False
    skipped: tuple[dict[str, str], ...] = ()

    def __init__(self, plan: StorePlan, folder: Path) -> None:
        if plan.patch_sampling is not None:
            raise UserError("data.store.enabled=false reads whole pictures; take data.cut away or build the store")
        self.plan, self.folder = plan, folder
        self.images = _Images(plan)
        self.index = Index.of_cases(plan.cases)
        self.labels = np.fromiter((case.label for case in plan.cases), np.int64, len(plan.cases))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the list of cases and of the steps; no file is opened."""
        digest = hashlib.sha256(repr((self.plan.preprocessing, self.plan.patch_size, self.plan.protocol)).encode())
        for case in self.plan.cases:
            digest.update(f"{case.id} {case.patient} {case.label} {case.class_name}".encode())
        return digest.hexdigest()

    def batch(self, rows: np.ndarray) -> Batch:
        """Read rows [B] as image in [-1, 1], label and row."""
        return Batch(
            image=to_float(self.images[rows]),
            label=torch.from_numpy(self.labels[rows]),
            row=torch.from_numpy(rows.astype(np.int64)),
        )

    def scans(self) -> Iterator[dict[str, Any]]:
        """Nothing was read yet, so there are no facts."""
        return iter(())
