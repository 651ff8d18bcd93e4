"""The store: every case read once into one memory-mapped array with an index of facts; shared by all runs.

Built under a lock in a folder beside its place and renamed when complete, so that half a store is never seen.
Splits are lists of rows, so all seeds share one store. Memory while building: one picture.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from anomaly_lab.data import transforms
from anomaly_lab.data.disk import disk_errors, fresh_folder, locked
from anomaly_lab.data.readers import is_deep
from anomaly_lab.data.transforms import Preprocessing, quantise, to_float
from anomaly_lab.types import Batch, Case, UserError

COLUMNS = ("id", "patient", "label", "file", "sha256")  # of index.csv; sha256 of the stored pixels


class Store:
    """A finished store, opened for reading.

    Attributes:
        folder: where it lies.
        images: [N, C, *S], uint8 or uint16, memory-mapped.
        masks: bool [N, 1, *S] or None where the data set has none; True = lesion.
        index: facts of each row, by COLUMNS.
        labels: [N], 0 normal, 1 anomalous.
        skipped: files left out under `data.on_bad=skip`, as {"file", "reason"}.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))  # a plain view indexes faster
        masks = folder / "masks.npy"
        self.masks = np.asarray(np.load(masks, mmap_mode="r")) if masks.exists() else None
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            self.index = list(csv.DictReader(file))
        self.labels = np.array([int(row["label"]) for row in self.index], np.int64)
        self.skipped: list[dict[str, str]] = json.loads((folder / "done.json").read_text())["skipped"]

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


@dataclass(frozen=True)
class StorePlan:
    """What a store is made of; its name on disk follows from it.

    Attributes:
        name: of the data set.
        root: folder the cases' files are given relative to.
        cases: the whole data set, in the order of the rows.
        preprocessing: what happens to each picture.
    """

    name: str
    root: Path
    cases: Sequence[Case]
    preprocessing: Preprocessing

    @cached_property
    def key(self) -> str:
        """Hash of every file's name, size and time of change, the facts, the preprocessing, its version."""
        digest = hashlib.sha256(f"{transforms.VERSION} {asdict(self.preprocessing)}".encode())
        for case in self.cases:
            digest.update(f"{case.id} {case.patient} {case.label}".encode())
            for path in (case.image, case.mask):
                if path is not None:
                    facts = path.stat()
                    digest.update(f"{self.relative(path)} {facts.st_size} {facts.st_mtime_ns}".encode())
        return digest.hexdigest()[:12]

    def relative(self, path: Path) -> str:
        """Name of a file as records show it."""
        return path.relative_to(self.root).as_posix()


def open_or_build(plan: StorePlan, store_dir: Path, on_bad: Literal["fail", "skip"]) -> Store:
    """Open the plan's store, building it first if need be; of several processes one builds, the others wait.

    Raises:
        UserError: a broken file, unless `on_bad` is "skip"; a full or read-only disk; no usable file at all.
    """
    folder = store_dir / f"{plan.name}-{plan.key}"
    if not (folder / "done.json").exists():
        with disk_errors(store_dir), locked(store_dir, plan.name):
            if not (folder / "done.json").exists():
                _build(plan, folder, on_bad)
    store = Store(folder)
    if store.skipped and on_bad == "fail":  # built by a run that was more tolerant
        raise UserError(store.skipped[0]["reason"])
    return store


def _build(plan: StorePlan, folder: Path, on_bad: Literal["fail", "skip"]) -> None:
    dtype = np.dtype(np.uint16 if any(is_deep(case.image) for case in plan.cases) else np.uint8)
    with fresh_folder(folder) as work, _Writer(work, plan, dtype) as writer:
        hidden = not sys.stderr.isatty()
        for case in track(plan.cases, f"reading {plan.name}", console=Console(stderr=True), disable=hidden):
            try:
                writer.add(case)
            except UserError as error:
                if on_bad == "fail":
                    raise
                writer.skipped.append({"file": plan.relative(case.image), "reason": str(error)})
        writer.finish()


@dataclass
class _Writer:
    """Appends cases to the files of a store.

    Plain writes rather than a memory map: a full disk then raises instead of killing the process.
    """

    work: Path
    plan: StorePlan
    dtype: np.dtype
    rows: list[tuple[str, ...]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __enter__(self) -> _Writer:
        steps = self.plan.preprocessing
        size = steps.patch_size
        self.arrays = [_Array(self.work / "images.npy", (steps.in_channels, *size), self.dtype)]
        if any(case.mask for case in self.plan.cases):
            self.arrays.append(_Array(self.work / "masks.npy", (1, *size), np.dtype(bool)))
        return self

    def __exit__(self, *_: object) -> None:
        for array in self.arrays:
            array.file.close()

    def add(self, case: Case) -> None:
        """Read one case and append it; nothing is written if it is broken."""
        steps = self.plan.preprocessing
        image = quantise(steps.image(case.image), self.dtype)
        blank = np.zeros((1, *steps.patch_size), bool)
        mask = steps.mask(case.mask, case.image) if case.mask else blank
        for array, values in zip(self.arrays, (image, mask), strict=False):
            array.append(values)
        sha256 = hashlib.sha256(image.tobytes()).hexdigest()
        self.rows.append((case.id, case.patient, str(case.label), self.plan.relative(case.image), sha256))

    def finish(self) -> None:
        """Complete the headers, write the index and the marker."""
        if not self.rows:
            raise UserError(f"{self.plan.root}: not one usable picture; the first: {self.skipped[0]['reason']}")
        for array in self.arrays:
            array.finish()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *self.rows])
        (self.work / "index.csv").write_text(text.getvalue(), encoding="utf-8")
        done = {"key": self.plan.key, "skipped": self.skipped}
        (self.work / "done.json").write_text(json.dumps(done, indent=1), encoding="utf-8")


class _Array:
    """A .npy file that grows at its end; the header, of fixed length, gets the true count at last."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.file = path.open("w+b")
        self.shape, self.dtype, self.count = shape, dtype, 0
        self._header()

    def _header(self) -> None:
        facts = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, facts)

    def append(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.count += 1

    def finish(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.flush()
