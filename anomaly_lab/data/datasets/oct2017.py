"""Retinal OCT of four classes (Kermany et al. 2018, Cell, "OCT2017"): B-scans of the Zhang Lab, one class an image.

Layout: `OCT2017/{train,val,test}/{CNV,DME,DRUSEN,NORMAL}/<CLASS>-<patient>-<n>.jpeg`, or the same without the outer
folder, or in the `CellData/OCT` of the Mendeley archive. The twin adds `masks/<split>/<file>.png`.
Protocol: the owners' split; normals of train train, test is judged (BMAD: 26 315; 242 and 726; DATASETS §9). The
held-out normals come from train, by patient: `val` has eight, too few to set a threshold by, and is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.oct2017 import write_twin
from anomaly_lab.types import Case, UserError

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SPLITS = ("train", "val", "test")
_KAGGLE_TRAIN = (37205, 11348, 8616, 26315)
RELEASES = {  # images of each class, as in CLASSES
    "kaggle v2": {"train": _KAGGLE_TRAIN, "val": (8, 8, 8, 8), "test": (242, 242, 242, 242)},
    "mendeley v2": {"train": _KAGGLE_TRAIN, "val": (0, 0, 0, 0), "test": (250, 250, 250, 250)},
    "mendeley v3": {"train": (37206, 11349, 8617, 51140), "val": (0, 0, 0, 0), "test": (250, 250, 250, 250)},
}
PART = "part of the set"
WHITE = 250  # grey levels from here up are margin; JPEG blurs 255
_NAME = re.compile(r"([A-Z]+)-(\d+)-(\d+)", re.ASCII)
_SUFFIXES = {"jpeg", "jpg"}


class OCT2017(PatchDataModule):
    """Retinal OCT images; several of a patient, who stays in one split."""

    name = "oct2017"
    where_to_get = (
        "get OCT2017 (Kaggle paultimothymooney/kermany2018, or Mendeley rscbjbr9sj) and lay it out as "
        "OCT2017/train/NORMAL/NORMAL-1001666-1.jpeg, with test and the other classes beside it"
    )
    twin_version = 1
    version = 1

    def __init__(self, *, drop_shared: bool = True, crop_white: bool = True, **arguments: Any) -> None:
        """Set the options of this data set; all others are PatchDataModule's.

        Args:
            drop_shared: leave out of train every patient who is in test too (of the 108 312 images of Mendeley v3
                that leaves 104 649: tvst.arvojournals.org, article 2778252). False for the owners' leaky split.
            crop_white: cut off the white margins that some files have.
            **arguments: of PatchDataModule.
        """
        self.drop_shared, self.crop_white = drop_shared, crop_white
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List train and test; val is only counted, to tell the release.

        Raises:
            UserError: a class without images, a misplaced or misnamed file, other counts than the release's.
        """
        folder = self._folder(root)
        found = list(_files(folder))
        counts = Counter((split, kind) for split, kind, _, _ in found)
        for split, kind in [("train", "NORMAL"), *(("test", kind) for kind in CLASSES)]:
            if not counts[split, kind]:
                raise UserError(f"{folder / split / kind}: no JPEG files; complete the data set")
        release(folder, counts)
        cases = [_case(folder, *file) for file in found if file[0] != "val"]
        if self.drop_shared:
            judged = {case.patient for case in cases if case.split == "test"}
            cases = [case for case in cases if case.split == "test" or case.patient not in judged]
        if not any(case.split == "train" and case.label == 0 for case in cases):
            raise UserError(f"{folder}: every normal patient of train is in test too; set data.drop_shared=false")
        return _with_masks(folder, cases)

    def read(self, case: Case) -> Scan:
        """Read an image without its white margins."""
        scan = super().read(case)
        if not self.crop_white:
            return scan
        rows, columns = without_margin(scan.pixels)
        mask = None if scan.mask is None else scan.mask[:, rows, columns]
        return replace(scan, pixels=scan.pixels[:, rows, columns], mask=mask)

    def protocol(self) -> dict[str, Any]:
        """What changes the pixels."""
        return super().protocol() | {"crop_white": self.crop_white}

    def facts(self) -> dict[str, Any]:
        """Add which release the files are and how many patients its train shares with its test."""
        folder = self._folder(self.folder)
        found = list(_files(folder))
        trained, judged = ({file[2] for file in found if file[0] == split} for split in ("train", "test"))
        counts = Counter((split, kind) for split, kind, _, _ in found)
        return super().facts() | {"release": release(folder, counts), "patients_in_both": len(trained & judged)}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic B-scans of the same layout."""
        write_twin(root, seed, size)

    def _folder(self, root: Path) -> Path:
        for folder in (root / "OCT2017", root / "CellData" / "OCT", root):
            if (folder / "train").is_dir() and (folder / "test").is_dir():
                return folder
        raise UserError(f"{root}: no folders train and test in it or in its OCT2017; {self.where_to_get}")


def release(folder: Path, counts: Counter[tuple[str, str]]) -> str:
    """Tell the release by its counts.

    Args:
        folder: named in the complaint.
        counts: images of each (split, class).

    Returns:
        A key of RELEASES, or PART where there are fewer images, or more, than any release has.

    Raises:
        UserError: as many images as a release, differently shared out.
    """
    known = {
        name: {(split, kind): count for split in SPLITS for kind, count in zip(CLASSES, sizes[split], strict=True)}
        for name, sizes in RELEASES.items()
    }
    for name, sizes in known.items():
        if all(counts[key] == count for key, count in sizes.items()):
            return name
    for name, sizes in known.items():
        if counts.total() == sum(sizes.values()):
            split, kind = next(key for key, count in sizes.items() if counts[key] != count)
            raise UserError(
                f"{folder / split / kind}: {counts[split, kind]} images, where {name} has {sizes[split, kind]} and the "
                f"same total of {counts.total()}; files were moved, unpack the data set anew"
            )
    return PART


def without_margin(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that remain when white lines are peeled off the border.

    Args:
        pixels: [C, H, W], uint8. A line is white when its mean is WHITE or more.

    Returns:
        Slices of rows and of columns; all of both where every line is white.
    """
    grey = pixels.mean(0)
    rows = _dark(grey.mean(1))
    return rows, _dark(grey[rows].mean(0))


def _dark(lines: np.ndarray) -> slice:
    """From the first to the last line that is not white."""
    dark = np.flatnonzero(lines < WHITE)
    return slice(int(dark[0]), int(dark[-1]) + 1) if dark.size else slice(0, len(lines))


def _files(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (split, class, patient, file name), sorted."""
    for split in SPLITS:
        for kind in CLASSES:
            where = folder / split / kind
            for name in sorted(path.name for path in where.iterdir()) if where.is_dir() else ():
                stem, _, suffix = name.rpartition(".")
                if suffix.lower() not in _SUFFIXES or name.startswith("."):
                    continue
                match = _NAME.fullmatch(stem)
                if match is None:
                    raise UserError(f"{where / name}: the name is not <CLASS>-<patient>-<number>; restore or remove it")
                if match[1] != kind:
                    raise UserError(f"{where / name}: by its name it is {match[1]}, not {kind}; move it")
                yield split, kind, match[2], name


def _case(folder: Path, split: str, kind: str, patient: str, name: str) -> Case:
    return Case(
        id=f"{split}/{name.rpartition('.')[0]}",
        patient=patient,
        image=folder / split / kind / name,
        label=int(kind != "NORMAL"),
        class_name=kind,
        split=split,
    )


def _with_masks(folder: Path, cases: list[Case]) -> list[Case]:
    """Add the lesions of a twin."""
    known = {
        path.with_suffix("").relative_to(folder / "masks").as_posix(): path for path in folder.glob("masks/*/*.png")
    }
    return [replace(case, mask=known.get(case.id)) for case in cases] if known else cases
