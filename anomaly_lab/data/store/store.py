"""The store: the patches of all scans in one memory-mapped array with an index, built once and shared by all runs.

Splits are lists of rows, so runs with different seeds share one store.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from anomaly_lab.data.preprocessing.transforms import to_float
from anomaly_lab.data.store.build import build
from anomaly_lab.data.store.disk import disk_errors, locked
from anomaly_lab.data.store.index import COLUMNS, Index
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import Batch, Case, UserError

CHECKED_BYTES = 2**26  # stores up to this size are compared with their hashes whenever they are opened
CHECKED_ROWS = 64  # so many rows, spread evenly, of larger stores
RETRIED = 20  # of the cases that were left out so many are tried again


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
        self.folder, self.reused = folder, reused
        with _damage_of(folder):
            done = _verified(folder)
            self.images = _mapped(folder / "images.npy")  # indexing is faster than on np.memmap
            self.masks = _mapped(folder / "masks.npy") if "masks.npy" in done["bytes"] else None
            self.index = Index.read(folder / "index.csv")
            self.labels = self.index.labels()
            skipped = [{"file": str(fact["file"]), "reason": str(fact["reason"])} for fact in done["skipped"]]
            self.skipped: list[dict[str, str]] = skipped
            self._refuse_misfits()
            self._hashes: dict[str, str] = dict(done.get("sha256", {}))  # of files; stores of older versions have none
            if self.images.nbytes > CHECKED_BYTES:
                self._refuse_altered(np.linspace(0, len(self.labels) - 1, CHECKED_ROWS))
            else:
                self.verify()

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)  # a worker process maps the file again instead of receiving a copy of its pixels

    def verify(self) -> int:
        """Compare the pixels of every row, and whole files, with the hashes that were written when they were built.

        Opening a large store compares some rows only.

        Returns:
            The number of rows.

        Raises:
            UserError: something has changed; says which folder to delete.
        """
        with _damage_of(self.folder):
            self._refuse_altered(range(len(self.labels)))
            for name, expected in self._hashes.items():
                with regular(self.folder / Path(name).name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        raise ValueError(f"the content of {name} has changed")
        return len(self.labels)

    def _refuse_misfits(self) -> None:
        """Raise ValueError if the arrays and the index are not those of one store."""
        n, images, masks = len(self.index), self.images, self.masks
        if (
            images.dtype not in (np.uint8, np.uint16)
            or images.ndim not in (4, 5)
            or len(images) != n
            or not images.size
        ):
            raise ValueError(f"images.npy holds {images.dtype}{list(images.shape)}, the index has {n} rows")
        if masks is not None and (masks.dtype != bool or masks.shape != (n, 1, *images.shape[2:])):
            raise ValueError("masks.npy does not fit images.npy")
        if tuple(self.index.columns) != COLUMNS or not np.isin(self.labels, (0, 1)).all():
            raise ValueError("index.csv is not the index of a store")

    def _refuse_altered(self, rows: Iterable[float]) -> None:
        """Raise ValueError if the pixels of some rows are not those of their hashes in the index."""
        hashes = self.index.columns["sha256"]
        for row in map(int, rows):
            if hashlib.sha256(self.images[row].tobytes()).hexdigest() != hashes[row]:
                raise ValueError(f"the pixels of row {row}, {self.index.columns['id'][row]}, have changed")

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
        with _damage_of(self.folder), regular(self.folder / "cases.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield dict(json.loads(line))


def _verified(folder: Path) -> dict[str, Any]:
    """Return the content of done.json, after comparing the store's name, the file sizes and the index with it."""
    done: dict[str, Any] = json.loads(regular(folder / "done.json").read_text(encoding="utf-8"))
    if not folder.name.endswith(str(done["key"])):
        raise ValueError("it was built under another name")
    sizes = {name: (folder / name).stat().st_size for name in done["bytes"]}
    if missing := {"images.npy", "index.csv", "cases.jsonl"} - sizes.keys():
        raise ValueError(f"done.json does not know {', '.join(sorted(missing))}")
    if changed := [name for name, size in sizes.items() if size != done["bytes"][name]]:
        raise ValueError(f"the size of {', '.join(changed)} has changed")
    index = done.get("sha256", {}).get("index.csv")  # stores of older versions have none
    if index and hashlib.sha256(regular(folder / "index.csv").read_bytes()).hexdigest() != index:
        raise ValueError("the content of index.csv has changed")
    return done


def _mapped(path: Path) -> np.ndarray:
    return np.asarray(np.load(regular(path), mmap_mode="r", allow_pickle=False))


@contextmanager
def _damage_of(folder: Path) -> Iterator[None]:
    """Convert what reading a damaged, or hostile, store can lead to into a UserError that says what to delete."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{folder}: the store is damaged: {reason}; delete this folder to rebuild it") from error


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
    if store.skipped and not built and _is_cured(plan, store):
        with disk_errors(store_dir), locked(store_dir, plan.name):
            if Store(folder).skipped:  # another process may have built it again
                shutil.rmtree(folder)
                build(plan, folder, on_bad)
        return Store(folder, reused=False)
    if store.skipped and on_bad == "fail":  # the store was built with on_bad="skip"
        raise UserError(store.skipped[0]["reason"])
    return store


def _is_cured(plan: StorePlan, store: Store) -> bool:
    """Return whether a case that was left out can be read now: its codec was installed, or its file made readable.

    Neither changes the file, so the store's key is as it was. Some cases speak for all.
    """
    skipped = {scan["case"] for scan in store.scans() if "skipped" in scan}
    tried = islice((case for case in plan.cases if case.id in skipped), RETRIED)
    return any(_can_be_read(plan, case) for case in tried)


def _can_be_read(plan: StorePlan, case: Case) -> bool:
    try:
        plan.patches(case)
    except UserError:
        return False
    return True
