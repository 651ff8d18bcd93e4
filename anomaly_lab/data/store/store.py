"""The store: every scan read once, its patches in one memory-mapped array with an index of facts; shared by all runs.

Splits are lists of rows, so all seeds share one store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.store.build import build
from anomaly_lab.data.store.disk import disk_errors, locked
from anomaly_lab.data.store.index import Index
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.types import Batch, UserError


class Store:
    """A finished store, opened for reading.

    Attributes:
        folder: where it lies.
        images: [N, C, *P], uint8 or uint16, memory-mapped.
        masks: bool [N, 1, *P] or None where the data set has none; True = lesion.
        index: facts of each row.
        labels: [N], 0 normal, 1 anomalous.
        skipped: files left out under `data.store.on_bad=skip`, as {"file", "reason"}.
        reused: whether it was there already when this process asked for it.
    """

    def __init__(self, folder: Path, reused: bool = True) -> None:
        done = _verified(folder)
        self.folder, self.reused = folder, reused
        self.images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))  # a plain view indexes faster
        masks = folder / "masks.npy"
        self.masks = np.asarray(np.load(masks, mmap_mode="r")) if masks.exists() else None
        self.index = Index.read(folder / "index.csv")
        self.labels = self.index.labels()
        self.skipped: list[dict[str, str]] = done["skipped"]

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)  # a worker maps the file again instead of getting a copy of it

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the index, so of every pixel and fact; the same on every machine."""
        return hashlib.sha256((self.folder / "index.csv").read_bytes()).hexdigest()

    def batch(self, rows: np.ndarray) -> Batch:
        """Fetch rows [B] as image in [-1, 1], label, row and, where there are masks, mask."""
        batch = Batch(
            image=to_float(self.images[rows]),
            label=torch.from_numpy(self.labels[rows]),
            row=torch.from_numpy(rows.astype(np.int64)),
        )
        if self.masks is not None:
            batch["mask"] = torch.from_numpy(self.masks[rows])
        return batch

    def scans(self) -> Iterator[dict[str, Any]]:
        """Facts of every case that was read: size, spacing, range, histogram and so on."""
        with (self.folder / "cases.jsonl").open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _verified(folder: Path) -> dict[str, Any]:
    """What done.json says, if the files are as long as it says."""
    try:
        done: dict[str, Any] = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in done["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: the store is damaged ({error}); delete this folder, it is built anew") from error
    if torn := [name for name, size in sizes.items() if size != done["bytes"][name]]:
        raise UserError(f"{folder}: {', '.join(torn)} changed its length; delete this folder, it is built anew")
    return done


def open_or_build(plan: StorePlan, store_dir: Path, on_bad: Literal["fail", "skip"]) -> Store:
    """Open the plan's store, building it first if need be; of several processes one builds, the others wait.

    Raises:
        UserError: a broken file, unless `on_bad` is "skip"; a full or read-only disk; no usable file at all.
    """
    folder, built = store_dir / f"{plan.name}-{plan.key}", False
    if not (folder / "done.json").exists():
        with disk_errors(store_dir), locked(store_dir, plan.name):
            if not (folder / "done.json").exists():
                build(plan, folder, on_bad)
                built = True
    store = Store(folder, reused=not built)
    if store.skipped and on_bad == "fail":  # built by a run that was more tolerant
        raise UserError(store.skipped[0]["reason"])
    return store
