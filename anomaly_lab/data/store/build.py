"""Building a store: case after case is appended to its files, and a killed build goes on where it stopped.

It is built in a folder beside its place, which is renamed when complete: half a store is never seen. A journal, one
line a case, lets a killed build end in the same bytes. Memory: one scan, a few times over (read, oriented, as float32,
quantised), and BLOCK of its patches.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.disk import resumed_folder
from anomaly_lab.data.store.index import COLUMNS
from anomaly_lab.data.store.plan import CutScan, StorePlan
from anomaly_lab.types import Case, UserError

BINS = 64  # of the intensity histograms
MAX_HISTOGRAM_SCANS = 1000  # scans of each label whose histograms are kept, drawn by their ids


def build(plan: StorePlan, folder: Path, on_bad: Literal["fail", "skip"]) -> None:
    """Build the plan's store in `folder`; the caller holds the lock.

    Raises:
        UserError: a broken file, unless `on_bad` is "skip"; no usable file at all.
    """
    with resumed_folder(folder) as work, Writer(work, plan) as writer:
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


class Writer:
    """Appends cases to the files of a store, continuing where a killed one stopped.

    Plain writes rather than a memory map: a full disk then raises instead of killing the process.
    """

    def __init__(self, work: Path, plan: StorePlan) -> None:
        self.work, self.plan = work, plan
        self._per_label = Counter(case.label for case in plan.cases)

    def __enter__(self) -> Writer:
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
        facts = {"label": case.label, "normal": int((windows.label == 0).sum()), "windows": len(windows.label)}
        self._note(case, _facts(scan, cut) | facts | (_histograms(scan, cut) if self._looked_at(case) else {}))

    def _looked_at(self, case: Case) -> bool:
        """Whether histograms of this case are kept; the same ones after a resume."""
        chance: int = zlib.crc32(case.id.encode())
        return chance % 2**20 < MAX_HISTOGRAM_SCANS / self._per_label[case.label] * 2**20

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
        whole = self.plan.patch_sampling is None and cut.scan.affine is None
        location = "" if whole else ",".join(map(str, cut.windows.location[i]))
        random = bool(cut.windows.random[i])
        return (
            f"{case.id}@{location}{'~' * random}" if location else case.id,
            case.id,
            case.patient,
            str(cut.windows.label[i]),
            case.class_name,
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
        "white": None if scan.affine is not None else int(np.iinfo(scan.pixels.dtype).max),
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
