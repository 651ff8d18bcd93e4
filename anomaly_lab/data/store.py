"""The store: every scan read once, its patches in one memory-mapped array with an index of facts; shared by all runs.

Built under a lock in a folder beside its place, which is renamed when complete: half a store is never seen. A journal,
one line a case, lets a killed build go on where it stopped and end in the same bytes. Splits are lists of rows, so all
seeds share one store. Memory while building: one scan, a few times over (read, oriented, as float32, quantised), and
BLOCK of its patches.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from anomaly_lab.data import patches, transforms
from anomaly_lab.data.disk import disk_errors, locked, resumed_folder
from anomaly_lab.data.index import COLUMNS, Index
from anomaly_lab.data.patches import Cutting
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.transforms import Prepared, Preprocessing, quantise, to_float
from anomaly_lab.types import Batch, Case, UserError

BINS = 64  # of the intensity histograms
BLOCK = 1024  # patches in memory at once
LOOKED_AT = 1000  # scans of each label whose histograms are kept, drawn by their ids


@dataclass(frozen=True)
class StorePlan:
    """What a store is made of; its name on disk follows from it.

    Attributes:
        name: of the data set.
        root: folder the cases' files are given relative to.
        cases: the whole data set, in the order of the rows.
        read: a case to its scan.
        preprocessing: a scan to its grid and to [0, 1].
        cutting: windows of it; None makes the whole picture one patch.
        patch_size: [P] of a patch.
        in_channels: channels of a patch.
        deep: whether a file has more than 8 bits a pixel; if one has, all are stored with 16.
        protocol: version of the data set's code and its options, JSON-able.
    """

    name: str
    root: Path
    cases: Sequence[Case]
    read: Callable[[Case], Scan]
    preprocessing: Preprocessing
    cutting: Cutting | None
    patch_size: tuple[int, ...]
    in_channels: int
    deep: Callable[[Path], bool]
    protocol: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def dtype(self) -> np.dtype:
        """Of the stored pixels; asks every file, so only a build needs it."""
        deep = cache(self.deep)  # many cases may lie in one file
        return np.dtype(np.uint16 if any(deep(case.image) for case in self.cases) else np.uint8)

    @cached_property
    def key(self) -> str:
        """Hash of every file's name, size and time of change, the facts, every step and its version."""
        steps = [transforms.VERSION, patches.VERSION, asdict(self.preprocessing), self.cutting and asdict(self.cutting)]
        what = [*steps, self.patch_size, self.in_channels, self.protocol]
        digest = hashlib.sha256(json.dumps(what, default=str).encode())
        known: dict[Path, str] = {}
        for case in self.cases:
            digest.update(f"{case.id} {case.patient} {case.label} {case.kind} {case.frame} {case.box}".encode())
            for path in (case.image, case.mask, *case.slices):
                if path is not None:
                    if path not in known:
                        known[path] = self._facts(path)
                    digest.update(known[path].encode())
        return digest.hexdigest()[:12]

    def _facts(self, path: Path) -> str:
        try:
            facts = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); complete the data set") from error
        return f"{self.relative(path)} {facts.st_size} {facts.st_mtime_ns}"

    def relative(self, path: Path) -> str:
        """Name of a file as records show it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def patches(self, case: Case) -> tuple[CutScan, Scan]:
        """Read and cut one case.

        Raises:
            UserError: it is unreadable or does not fit the plan; names the file.
        """
        try:
            scan = self.read(case)
            return CutScan.of(self, case, self.preprocessing(scan)), scan
        except UserError as error:
            named = str(error) if str(case.image) in str(error) or "/" in str(error).split(":")[0] else ""
            if named:
                raise
            remedy = "replace it, or leave such files out with data.on_bad=skip"
            raise UserError(f"{case.image}: {error}; {remedy}") from error


@dataclass(frozen=True)
class CutScan:
    """The windows of one prepared scan.

    Attributes:
        scan: prepared, its pixels quantised.
        windows: where they lie and what they bear.
        extent: size of each, [D].
        across: axis that two-dimensional patches of a volume are perpendicular to, or None.
        dtype: of the pixels.
        unmasked: whether the scan is anomalous and its lesion unknown.
    """

    scan: Prepared
    windows: patches.Windows
    extent: tuple[int, ...]
    across: int | None
    unmasked: bool

    @classmethod
    def of(cls, plan: StorePlan, case: Case, scan: Prepared) -> CutScan:
        """Choose the windows of a scan and quantise it."""
        volume = scan.affine is not None
        cutting = plan.cutting or Cutting()
        axcodes = plan.preprocessing.volume.axcodes if volume else None
        extent = cutting.extent(plan.patch_size, axcodes)
        across = cutting.axis(axcodes) if axcodes and len(plan.patch_size) == 2 else None
        windows = cutting.windows(scan, extent, case.id, case.label, across)
        pixels = quantise(scan.pixels, plan.dtype)
        if volume and plan.in_channels > 1:
            pixels = np.repeat(pixels, plan.in_channels, axis=0)
        return cls(scan._replace(pixels=pixels), windows, extent, across, case.label == 1 and scan.mask is None)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Patches [n, C, *P] and masks [n, 1, *P], BLOCK at a time."""
        arguments = (self.windows.location, self.extent, self.across, BLOCK)
        if self.scan.mask is None:
            yield from ((some, None) for some in patches.cut(self.scan.pixels, *arguments))
        else:
            both = (patches.cut(values, *arguments) for values in (self.scan.pixels, self.scan.mask))
            yield from zip(*both, strict=True)


class Store:
    """A finished store, opened for reading.

    Attributes:
        folder: where it lies.
        images: [N, C, *P], uint8 or uint16, memory-mapped.
        masks: bool [N, 1, *P] or None where the data set has none; True = lesion.
        index: facts of each row.
        labels: [N], 0 normal, 1 anomalous.
        skipped: files left out under `data.on_bad=skip`, as {"file", "reason"}.
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
                _build(plan, folder, on_bad)
                built = True
    store = Store(folder, reused=not built)
    if store.skipped and on_bad == "fail":  # built by a run that was more tolerant
        raise UserError(store.skipped[0]["reason"])
    return store


def _build(plan: StorePlan, folder: Path, on_bad: Literal["fail", "skip"]) -> None:
    with resumed_folder(folder) as work, _Writer(work, plan) as writer:
        hidden = not sys.stderr.isatty()
        rest = plan.cases[writer.done :]
        for case in track(rest, f"reading {plan.name}", console=Console(stderr=True), disable=hidden):
            try:
                writer.add(case)
            except UserError as error:
                if on_bad == "fail":
                    raise
                writer.skip(case, str(error))
        writer.finish()


class _Writer:
    """Appends cases to the files of a store, continuing where a killed one stopped.

    Plain writes rather than a memory map: a full disk then raises instead of killing the process.
    """

    def __init__(self, work: Path, plan: StorePlan) -> None:
        self.work, self.plan = work, plan
        self._per_label = Counter(case.label for case in plan.cases)

    def __enter__(self) -> _Writer:
        lines = _whole_lines(self.work / "cases.jsonl")
        last = json.loads(lines[-1]) if lines else {"rows": 0, "index": 0, "masks": False}
        self.done, self.rows = len(lines), last["rows"]
        patch = self.plan.patch_size
        self.images = _Array(self.work / "images.npy", (self.plan.in_channels, *patch), self.plan.dtype, self.rows)
        self.masks = _Array(self.work / "masks.npy", (1, *patch), np.dtype(bool), self.rows) if last["masks"] else None
        self.index = _cut_off(self.work / "index.csv", last["index"])
        self.journal = _cut_off(self.work / "cases.jsonl", sum(map(len, lines)))
        if not self.done:
            self._write(self.index, [COLUMNS])
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files(), self.journal):
            file.close()

    def add(self, case: Case) -> None:
        """Read one case and append its patches; nothing is written if it is broken."""
        cut, scan = self.plan.patches(case)
        windows, first = cut.windows, self.rows
        for images, masks in cut.blocks():
            if masks is not None and self.masks is None:
                self.masks = _Array(self.work / "masks.npy", masks.shape[1:], np.dtype(bool), 0)
                self.masks.pad(self.rows)
            self.images.append(images)
            if masks is not None and self.masks is not None:
                self.masks.append(masks)
            block = range(self.rows - first, self.rows - first + len(images))
            self._write(self.index, [self._row(case, cut, i, image) for i, image in zip(block, images, strict=True)])
            self.rows += len(images)
        if self.masks is not None:
            self.masks.pad(self.rows)
        facts = {"normal": int((windows.label == 0).sum()), "windows": len(windows.label)}
        self._note(case, _facts(scan, cut) | facts | (_histograms(scan, cut) if self._looked_at(case) else {}))

    def _looked_at(self, case: Case) -> bool:
        """Whether histograms of this case are kept; the same ones after a resume."""
        chance: int = zlib.crc32(case.id.encode())
        return chance % 2**20 < LOOKED_AT / self._per_label[case.label] * 2**20

    def skip(self, case: Case, reason: str) -> None:
        """Note a case that is left out."""
        self._note(case, {"skipped": reason})

    def finish(self) -> None:
        """Complete the headers, write the marker."""
        skipped = [
            {"file": facts["file"], "reason": facts["skipped"]}
            for facts in map(json.loads, _whole_lines(self.work / "cases.jsonl"))
            if "skipped" in facts
        ]
        if not self.rows:
            first = skipped[0]["reason"] if skipped else "no window passes the rules of data.cut"
            raise UserError(f"{self.plan.root}: not one usable picture; the first: {first}")
        names = ["images.npy", "index.csv", "cases.jsonl"]
        self.images.finish()
        if self.masks is not None:
            self.masks.finish()
            names.append("masks.npy")
        sizes = {name: (self.work / name).stat().st_size for name in names}
        done = {"key": self.plan.key, "skipped": skipped, "bytes": sizes}
        (self.work / "done.json").write_text(json.dumps(done, indent=1), encoding="utf-8")

    def _row(self, case: Case, cut: CutScan, i: int, image: np.ndarray) -> tuple[str, ...]:
        whole = self.plan.cutting is None and cut.scan.affine is None
        location = "" if whole else ",".join(map(str, cut.windows.location[i]))
        random = bool(cut.windows.random[i])
        return (
            f"{case.id}@{location}{'~' * random}" if location else case.id,
            case.id,
            case.patient,
            str(cut.windows.label[i]),
            case.kind,
            location,
            "random" if random else "unmasked" if cut.unmasked else "grid",
            self.plan.relative(case.image),
            hashlib.sha256(image.tobytes()).hexdigest(),
        )

    def _files(self) -> Iterator[io.BufferedRandom]:
        yield from (array.file for array in (self.images, self.masks) if array is not None)
        yield self.index

    @staticmethod
    def _write(file: io.BufferedRandom, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        file.write(text.getvalue().encode())

    def _note(self, case: Case, facts: dict[str, Any]) -> None:
        """Close a case: when its line is on disk whole, so is everything before it."""
        for file in self._files():
            file.flush()
        place = {"rows": self.rows, "index": self.index.tell(), "masks": self.masks is not None}
        line = {"case": case.id, "file": self.plan.relative(case.image), **place, **facts}
        self.journal.write(json.dumps(line).encode() + b"\n")
        self.journal.flush()


def _facts(scan: Scan, cut: CutScan) -> dict[str, Any]:
    """What the data sheet says of a scan."""
    return {
        "size": list(scan.shape),
        "spacing": scan.spacing and [round(edge, 4) for edge in scan.spacing],
        "range": [float(scan.pixels.min()), float(scan.pixels.max())],
        "clipped": round(cut.scan.clipped, 6),
        "lesion": None if scan.mask is None else int(np.count_nonzero(scan.mask)),
    }


def _histograms(scan: Scan, cut: CutScan) -> dict[str, Any]:
    """Of the numbers as read, over their range, and as stored, over the type's."""
    raw, kept = (values.ravel()[:: max(1, values.size // 100_000)] for values in (scan.pixels, cut.scan.pixels))
    low, high = float(scan.pixels.min()), float(scan.pixels.max())
    return {
        "histogram": np.histogram(raw, BINS, (low, high if high > low else low + 1))[0].tolist(),
        "stored_histogram": np.histogram(kept, BINS, (0, np.iinfo(kept.dtype).max))[0].tolist(),
    }


def _whole_lines(path: Path) -> list[bytes]:
    """Lines of a file that end, in their order."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def _cut_off(path: Path, size: int) -> io.BufferedRandom:
    """Open a file for appending behind its first `size` bytes."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


class _Array:
    """A .npy file that grows at its end; the header, of fixed length, gets the true count at last."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, count: int) -> None:
        self.shape, self.dtype, self.count = shape, dtype, count
        self.size = int(np.prod(shape)) * dtype.itemsize
        self.file = path.open("r+b" if path.exists() else "w+b")
        self._header()
        self.start = self.file.tell()
        self.file.truncate(self.start + count * self.size)
        self.file.seek(0, os.SEEK_END)

    def _header(self) -> None:
        facts = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, facts)

    def append(self, values: np.ndarray) -> None:
        """Write values [n, *shape] behind the others."""
        self.file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.count += len(values)

    def pad(self, count: int) -> None:
        """Fill with zeros up to `count`."""
        self.file.truncate(self.start + count * self.size)
        self.file.seek(0, os.SEEK_END)
        self.count = count

    def finish(self) -> None:
        """Write the true count."""
        self.file.seek(0)
        self._header()
        self.file.flush()
