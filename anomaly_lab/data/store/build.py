"""Building a store: cases are appended one by one, and a killed build is resumed where it stopped.

The store is built in a temporary folder next to its final one and renamed when complete, so an incomplete store is
never visible. A journal with one line per case makes a resumed build produce the same bytes as an uninterrupted one.
Memory: a few copies of one scan (as read, oriented, as float32, quantized) and BLOCK of its patches.
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
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from anomaly_lab.data.readers.header_facts import file_facts
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.disk import resumed_folder
from anomaly_lab.data.store.index import COLUMNS
from anomaly_lab.data.store.plan import CutScan, StorePlan
from anomaly_lab.evaluation.shortcuts.view import block_edges
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import Case, UserError

BINS = 64  # bins of the intensity histograms
MAX_SIDE = 1024  # pixels of a picture in which traces of JPEG are looked for, from the top left
MAX_HISTOGRAM_SCANS = 1000  # approximate number of scans per label whose histograms are kept, sampled by id


def build(plan: StorePlan, folder: Path, on_bad: Literal["fail", "skip"]) -> None:
    """Build the store of a plan in `folder`; the caller must hold the lock.

    Use `open_or_build`, which takes the lock and has an example.

    Raises:
        UserError: a file is broken and `on_bad` is "fail", or no file is usable.
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
    """Appends cases to the files of a store and resumes where a killed writer stopped.

    It uses plain writes instead of a memory map, because a full disk then raises an error instead of killing the
    process.

    Examples:
        Needs the plan of a data set, so this block is not executed:

            with Writer(folder, plan) as writer:
                for case in plan.cases[writer.done :]:
                    writer.add(case)
                writer.finish()
    """

    def __init__(self, work: Path, plan: StorePlan) -> None:
        self.work, self.plan = work, plan
        self._per_label = Counter(case.label for case in plan.cases)
        self._of_files = lru_cache(maxsize=1)(file_facts)  # one file may contain many cases

    def __enter__(self) -> Writer:
        lines = _whole_lines(self.work / "cases.jsonl")
        try:
            last = json.loads(lines[-1]) if lines else {"rows": 0, "index": 0, "masks": False}
            self.done, self.rows = len(lines), int(last["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.work}: its cases.jsonl is damaged ({error}); start again"
            ) from error  # it is removed
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
        """Read one case and append its patches; a broken case leaves the files unchanged."""
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
        counts = {"normal": int((windows.label == 0).sum()), "windows": len(windows.label)}
        facts = {"label": case.label, **counts, "header": self._of_files((case.image, *case.slices))}
        histograms = _histograms(scan, cut) if self._keeps_histograms(case) else {}
        self._note(case, _facts(scan, cut) | facts | histograms)

    def _keeps_histograms(self, case: Case) -> bool:
        """Return whether histograms of this case are kept; the choice is the same after a resume."""
        chance: int = zlib.crc32(case.id.encode())
        return chance % 2**20 < MAX_HISTOGRAM_SCANS / self._per_label[case.label] * 2**20

    def skip(self, case: Case, reason: str) -> None:
        """Record a case that is left out."""
        self._note(case, {"skipped": reason})

    def finish(self) -> None:
        """Write the final array headers and done.json, which marks the store as complete."""
        skipped = [
            {"file": facts["file"], "reason": facts["skipped"]}
            for facts in map(json.loads, _whole_lines(self.work / "cases.jsonl"))
            if "skipped" in facts
        ]
        if not self.rows:
            first = skipped[0]["reason"] if skipped else "no window passes the rules of data.cut"
            raise UserError(f"{self.plan.root}: no picture is usable; the reason for the first: {first}")
        names = ["images.npy", "index.csv", "cases.jsonl"]
        self.images.finish()
        if self.masks is not None:
            self.masks.finish()
            names.append("masks.npy")
        sizes = {name: (self.work / name).stat().st_size for name in names}
        hashes = {name: _sha256(self.work / name) for name in names if name != "images.npy"}  # whose rows have theirs
        done = {"key": self.plan.key, "skipped": skipped, "bytes": sizes, "sha256": hashes}
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
        """Append the line of a case to the journal, after flushing all other files."""
        for file in self._files():
            file.flush()
        place = {"rows": self.rows, "index": self.index.tell(), "masks": self.masks is not None}
        line = {"case": case.id, "file": self.plan.relative(case.image), **place, **facts}
        self.journal.write(json.dumps(line).encode() + b"\n")
        self.journal.flush()


def _facts(scan: Scan, cut: CutScan) -> dict[str, Any]:
    """Return the facts of a scan for the data sheet."""
    return {
        "size": list(scan.shape),
        "spacing": scan.spacing and [round(edge, 4) for edge in scan.spacing],
        "range": [float(scan.pixels.min()), float(scan.pixels.max())],
        "white": None if scan.affine is not None else int(np.iinfo(scan.pixels.dtype).max),
        "clipped": round(cut.scan.clipped, 6),
        "lesion": None if scan.mask is None else int(np.count_nonzero(scan.mask)),
        "blocks": None if scan.affine is not None else block_edges(scan.pixels[..., :MAX_SIDE, :MAX_SIDE]),
        **({"uncropped": True} if scan.uncropped else {}),
        **({"vanished": True} if cut.vanished and not scan.lesion_cut_away else {}),
        **({"cut_away": True} if scan.lesion_cut_away else {}),
    }


def _histograms(scan: Scan, cut: CutScan) -> dict[str, Any]:
    """Return histograms of the values as read, over their range, and as stored, over the range of their type."""
    raw, kept = (values.ravel()[:: max(1, values.size // 100_000)] for values in (scan.pixels, cut.scan.pixels))
    low, high = float(scan.pixels.min()), float(scan.pixels.max())
    return {
        "histogram": np.histogram(raw, BINS, (low, high if high > low else low + 1))[0].tolist(),
        "stored_histogram": np.histogram(kept, BINS, (0, np.iinfo(kept.dtype).max))[0].tolist(),
    }


def _whole_lines(path: Path) -> list[bytes]:
    """Return the complete lines of a file, those that end in a line feed."""
    lines = regular(path).read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut_off(path: Path, size: int) -> io.BufferedRandom:
    """Truncate a file to `size` bytes and open it for appending."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


class _Array:
    """A .npy file that grows at its end; `finish` writes the final count into its header of fixed length."""

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
        """Append values [n, *shape]."""
        self.file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.count += len(values)

    def pad(self, count: int) -> None:
        """Extend the array with zeros to `count` elements."""
        self.file.truncate(self.start + count * self.size)
        self.file.seek(0, os.SEEK_END)
        self.count = count

    def finish(self) -> None:
        """Write the final count into the header."""
        self.file.seek(0)
        self._header()
        self.file.flush()
