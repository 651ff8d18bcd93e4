"""The plan of a store: its cases and every step from a file to patches (read, prepare, cut)."""

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
from anomaly_lab.data.store.content import sampled
from anomaly_lab.types import Case, UserError

BLOCK = 1024  # number of patches in memory at a time
SAMPLED = 1000  # files at most, spread evenly, whose content is part of the key


@dataclass(frozen=True)
class StorePlan:
    """Everything that determines the content of a store, and through `key` its folder name.

    Attributes:
        name: name of the data set.
        root: folder that file names are relative to.
        cases: the whole data set, in the order of the rows.
        read: reads the scan of a case.
        preprocessing: brings a scan to its grid and to [0, 1].
        patch_sampling: selects the windows of a scan; None makes the whole picture one patch.
        patch_size: spatial sizes *P of a patch.
        in_channels: channels of a patch.
        deep: whether a file has more than 8 bits per pixel; if one has, all pixels are stored with 16.
        protocol: version and options of the data set's code, serializable as JSON.
        bits: bits of a stored pixel, 8 or 16; None determines them from the files.

    Examples:
        >>> plan = StorePlan(
        ...     name="demo",
        ...     root=Path("data"),
        ...     cases=[],
        ...     read=lambda case: Scan(np.zeros((1, 4, 4), np.uint8)),
        ...     preprocessing=Preprocessing(size=(4, 4)),
        ...     patch_sampling=None,
        ...     patch_size=(4, 4),
        ...     in_channels=1,
        ...     deep=lambda path: False,
        ... )
        >>> plan.dtype.name, len(plan.key), plan.relative(Path("data/x/a.png"))
        ('uint8', 12, 'x/a.png')
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
        """Type of the stored pixels; without `bits` every file's header is read, so only a build should use it."""
        if self.bits is not None:
            return np.dtype(f"uint{self.bits}")
        deep = cache(self.deep)  # one file may contain many cases
        return np.dtype(np.uint16 if any(deep(case.image) for case in self.cases) else np.uint8)

    @cached_property
    def key(self) -> str:
        """Hash of the name, size and time of every file, of bytes of some, of the cases, and of all steps and versions.

        It says nothing of where the files lie, so a data set that was moved keeps its store. Two sets whose files have
        equal names, sizes and times (as unpacked archives and buckets have) are told apart by bytes of SAMPLED files.
        """
        steps = [
            transforms.VERSION,
            patches.VERSION,
            asdict(self.preprocessing),
            self.patch_sampling and asdict(self.patch_sampling),
        ]
        settings = [*steps, self.patch_size, self.in_channels, self.protocol]
        digest = hashlib.sha256(json.dumps(settings, default=str).encode())
        known: dict[Path, str] = {}
        for case in self.cases:
            digest.update(f"{case.id} {case.patient} {case.label} {case.class_name} {case.frame} {case.box}".encode())
            for path in (case.image, case.mask, *case.slices):
                if path is not None:
                    if path not in known:
                        known[path] = self._facts(path)
                    digest.update(known[path].encode())
        files = list(known)
        chosen = np.linspace(0, len(files) - 1, min(len(files), SAMPLED)).astype(int).tolist()
        digest.update(sampled(files[place] for place in chosen))
        return digest.hexdigest()[:12]

    def _facts(self, path: Path) -> str:
        try:
            facts = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); complete the data set") from error
        return f"{self.relative(path)} {facts.st_size} {facts.st_mtime_ns}"

    def relative(self, path: Path) -> str:
        """Return the name of a file as shown in records: relative to `root`, or only its last part if outside it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def patches(self, case: Case) -> tuple[CutScan, Scan]:
        """Read one case and select its windows.

        Raises:
            UserError: the case is unreadable or does not fit the plan; the message names the file.
        """
        try:
            scan = self.read(case)
            prepared = self.preprocessing(scan)
            vanished = scan.lesion_cut_away or _has_vanished(scan.mask, prepared.mask)
            return CutScan.of(self, case, prepared, vanished), scan
        except UserError as error:
            names_a_file = str(case.image) in str(error) or "/" in str(error).split(":")[0]
            if names_a_file:
                raise
            remedy = "replace it, or leave such files out with data.store.on_bad=skip"
            raise UserError(f"{case.image}: {error}; {remedy}") from error


def _has_vanished(before: np.ndarray | None, after: np.ndarray | None) -> bool:
    """Return whether a lesion was in a mask that has none any more, being smaller than the pixels it is drawn with."""
    return before is not None and after is not None and bool(before.any()) and not after.any()


@dataclass(frozen=True)
class CutScan:
    """A prepared scan and its windows.

    Attributes:
        scan: the prepared scan, its pixels quantized.
        windows: positions and labels of the windows.
        extent: size of a window, [D].
        across: axis perpendicular to two-dimensional patches of a volume, or None.
        unmasked: whether the scan is anomalous without a mask in which one could see where.
        vanished: whether this is so because its lesion has no pixel left, or was cropped away.

    Examples:
        >>> from anomaly_lab.data.datasets.folder import Folder
        >>> plan = Folder(root="none", source="twin", patch_size=(2, 2), cut=PatchSampling()).plan([])
        >>> scan = plan.preprocessing(Scan(np.arange(8, dtype=np.uint8).reshape(1, 2, 4)))
        >>> cut_scan = CutScan.of(plan, Case(id="a", patient="a", image=Path("a.png"), label=0), scan)
        >>> images, masks = next(cut_scan.blocks())
        >>> images[:, 0].tolist()  # two windows
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """

    scan: Prepared
    windows: patches.Windows
    extent: tuple[int, ...]
    across: int | None
    unmasked: bool
    vanished: bool = False

    @classmethod
    def of(cls, plan: StorePlan, case: Case, scan: Prepared, vanished: bool = False) -> CutScan:
        """Select the windows of a scan and quantize its pixels; `vanished` says that the lesion of its mask has."""
        volume = scan.affine is not None
        patch_sampling = plan.patch_sampling or patches.DEFAULT
        axcodes = plan.preprocessing.volume.axcodes if volume else None
        extent = patch_sampling.extent(plan.patch_size, axcodes)
        across = patch_sampling.axis(axcodes) if axcodes and len(plan.patch_size) == 2 else None
        windows = patch_sampling.windows(scan, extent, case.id, case.label, across)
        pixels = quantise(scan.pixels, plan.dtype)
        if volume and plan.in_channels > 1:
            pixels = np.repeat(pixels, plan.in_channels, axis=0)
        unmasked = case.label == 1 and (scan.mask is None or vanished)
        return cls(scan._replace(pixels=pixels), windows, extent, across, unmasked, unmasked and vanished)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield patches [n, C, *P] and masks [n, 1, *P], at most BLOCK at a time."""
        arguments = (self.windows.location, self.extent, self.across, BLOCK)
        if self.scan.mask is None:
            yield from ((block, None) for block in patches.cut(self.scan.pixels, *arguments))
        else:
            images_and_masks = (patches.cut(values, *arguments) for values in (self.scan.pixels, self.scan.mask))
            yield from zip(*images_and_masks, strict=True)
