"""What a store is made of, and what becomes of one scan: read, prepared, cut into patches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.preprocessing import patches, transforms
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Prepared, Preprocessing, quantise
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, UserError

BLOCK = 1024  # patches in memory at once


@dataclass(frozen=True)
class StorePlan:
    """What a store is made of; its name on disk follows from it.

    Attributes:
        name: of the data set.
        root: folder the cases' files are given relative to.
        cases: the whole data set, in the order of the rows.
        read: a case to its scan.
        preprocessing: a scan to its grid and to [0, 1].
        patch_sampling: windows of it; None makes the whole picture one patch.
        patch_size: [P] of a patch.
        in_channels: channels of a patch.
        deep: whether a file has more than 8 bits a pixel; if one has, all are stored with 16.
        protocol: version of the data set's code and its options, JSON-able.
        bits: of a stored pixel, 8 or 16; None asks the files.
    """

    name: str
    root: Path
    cases: Sequence[Case]
    read: Callable[[Case], Scan]
    preprocessing: Preprocessing
    patch_sampling: PatchSampling | None
    patch_size: tuple[int, ...]
    in_channels: int
    deep: Callable[[Path], bool]
    protocol: dict[str, Any] = field(default_factory=dict)
    bits: int | None = None

    @cached_property
    def dtype(self) -> np.dtype:
        """Of the stored pixels; where `bits` does not say it, every file is asked, so only a build needs it."""
        if self.bits is not None:
            return np.dtype(f"uint{self.bits}")
        deep = cache(self.deep)  # many cases may lie in one file
        return np.dtype(np.uint16 if any(deep(case.image) for case in self.cases) else np.uint8)

    @cached_property
    def key(self) -> str:
        """Hash of every file's name, size and time of change, the facts, every step and its version."""
        steps = [
            transforms.VERSION,
            patches.VERSION,
            asdict(self.preprocessing),
            self.patch_sampling and asdict(self.patch_sampling),
        ]
        what = [*steps, self.patch_size, self.in_channels, self.protocol]
        digest = hashlib.sha256(json.dumps(what, default=str).encode())
        known: dict[Path, str] = {}
        for case in self.cases:
            digest.update(f"{case.id} {case.patient} {case.label} {case.class_name} {case.frame} {case.box}".encode())
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
            remedy = "replace it, or leave such files out with data.store.on_bad=skip"
            raise UserError(f"{case.image}: {error}; {remedy}") from error


@dataclass(frozen=True)
class CutScan:
    """The windows of one prepared scan.

    Attributes:
        scan: prepared, its pixels quantised.
        windows: where they lie and what they bear.
        extent: size of each, [D].
        across: axis that two-dimensional patches of a volume are perpendicular to, or None.
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
        patch_sampling = plan.patch_sampling or PatchSampling()
        axcodes = plan.preprocessing.volume.axcodes if volume else None
        extent = patch_sampling.extent(plan.patch_size, axcodes)
        across = patch_sampling.axis(axcodes) if axcodes and len(plan.patch_size) == 2 else None
        windows = patch_sampling.windows(scan, extent, case.id, case.label, across)
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
