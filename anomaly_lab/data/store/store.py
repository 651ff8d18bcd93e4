"""The store: the patches of all scans in one memory-mapped array with an index, built once and shared by all runs.

Splits are lists of rows, so runs with different seeds share one store.
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
    """A finished store, opened for reading; see `open_or_build` for an example.

    Attributes:
        folder: folder of the store.
        images: [N, C, *P], uint8 or uint16, memory-mapped.
        masks: bool [N, 1, *P], True = lesion; None if the data set has no masks.
        index: metadata of each row.
        labels: [N], 0 normal, 1 anomalous.
        skipped: files left out under `data.store.on_bad=skip`, as {"file", "reason"}.
        reused: whether the store existed before this process opened it.
    """

    def __init__(self, folder: Path, reused: bool = True) -> None:
        done = _verified(folder)
        self.folder, self.reused = folder, reused
        self.images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))  # indexing is faster than on np.memmap
        masks = folder / "masks.npy"
        self.masks = np.asarray(np.load(masks, mmap_mode="r")) if masks.exists() else None
        self.index = Index.read(folder / "index.csv")
        self.labels = self.index.labels()
        self.skipped: list[dict[str, str]] = done["skipped"]

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)  # a worker process maps the file again instead of receiving a copy of its pixels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the index, and through its hashes of every pixel; equal on every machine."""
        return hashlib.sha256((self.folder / "index.csv").read_bytes()).hexdigest()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprint and the one that older versions recorded, under which a column had another name."""
        content = (self.folder / "index.csv").read_bytes()
        return self.fingerprint, hashlib.sha256(content.replace(b"class_name", b"kind", 1)).hexdigest()

    def digests(self) -> list[str]:
        """A digest of every row's label, role, pixels and mask, see `Index.digests`."""
        contents = (
            b"" if self.masks is None else np.packbits(self.masks[row]).tobytes() for row in range(len(self.labels))
        )
        return self.index.digests(contents)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return rows [B] as a batch of image in [-1, 1], label, row and, if the store has masks, mask."""
        batch = Batch(
            image=to_float(self.images[rows]),
            label=torch.from_numpy(self.labels[rows]),
            row=torch.from_numpy(rows.astype(np.int64)),
        )
        if self.masks is not None:
            batch["mask"] = torch.from_numpy(self.masks[rows])
        return batch

    def scans(self) -> Iterator[dict[str, Any]]:
        """Yield the facts of every case that was read, such as size, spacing, range and histograms."""
        with (self.folder / "cases.jsonl").open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _verified(folder: Path) -> dict[str, Any]:
    """Return the content of done.json, after comparing the file sizes with it."""
    try:
        done: dict[str, Any] = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in done["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: the store is damaged ({error}); delete this folder to rebuild it") from error
    if changed := [name for name, size in sizes.items() if size != done["bytes"][name]]:
        raise UserError(f"{folder}: the size of {', '.join(changed)} has changed; delete this folder to rebuild it")
    return done


def open_or_build(plan: StorePlan, store_dir: Path, on_bad: Literal["fail", "skip"]) -> Store:
    """Open the store of a plan and build it first if it does not exist; of several processes, one builds.

    Args:
        plan: the content of the store.
        store_dir: folder of all stores.
        on_bad: "fail" raises an error for a broken file, "skip" leaves the file out.

    Raises:
        UserError: a file is broken and `on_bad` is "fail", no file is usable, or the disk is full or read-only.

    Examples:
        >>> import tempfile
        >>> from anomaly_lab.data.preprocessing.transforms import Preprocessing
        >>> from anomaly_lab.data.readers.files import is_deep, read_scan
        >>> from anomaly_lab.types import Case
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = Path(folder)
        ...     Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(root / "a.png")
        ...     plan = StorePlan(
        ...         name="demo",
        ...         root=root,
        ...         cases=[Case(id="a", patient="a", image=root / "a.png", label=1)],
        ...         read=lambda case: read_scan(case, in_channels=1),
        ...         preprocessing=Preprocessing(size=None),
        ...         patch_sampling=None,
        ...         patch_size=(1, 3),
        ...         in_channels=1,
        ...         deep=is_deep,
        ...     )
        ...     store = open_or_build(plan, root / "store", on_bad="fail")
        ...     store.images.tolist(), store.labels.tolist(), store.reused
        ([[[[0, 51, 255]]]], [1], False)
    """
    folder, built = store_dir / f"{plan.name}-{plan.key}", False
    if not (folder / "done.json").exists():
        with disk_errors(store_dir), locked(store_dir, plan.name):
            if not (folder / "done.json").exists():
                build(plan, folder, on_bad)
                built = True
    store = Store(folder, reused=not built)
    if store.skipped and on_bad == "fail":  # the store was built with on_bad="skip"
        raise UserError(store.skipped[0]["reason"])
    return store
