"""Retinal OCT in four classes (Kermany et al. 2018, Cell, "OCT2017"): B-scans of the Zhang Lab, one class per image.

Layout: `OCT2017/{train,val,test}/{CNV,DME,DRUSEN,NORMAL}/<CLASS>-<patient>-<n>.jpeg`, or the same without the outer
folder, or in the folder `CellData/OCT` of the Mendeley archive. The synthetic twin adds `masks/<split>/<file>.png`.
Protocol: the official split; the normals of train train, and test is the test split (BMAD: 26 315; 242 and 726).
Validation normals are drawn from train, by patient: the official `val` has eight, too few to set a threshold, and is
left out.
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
from anomaly_lab.data.readers.scan import Origin, Scan
from anomaly_lab.data.twins.oct2017 import write_twin
from anomaly_lab.types import Case, UserError

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SPLITS = ("train", "val", "test")
_KAGGLE_TRAIN = (37205, 11348, 8616, 26315)
RELEASES = {  # number of images per class, in the order of CLASSES
    "kaggle v2": {"train": _KAGGLE_TRAIN, "val": (8, 8, 8, 8), "test": (242, 242, 242, 242)},
    "mendeley v2": {"train": _KAGGLE_TRAIN, "val": (0, 0, 0, 0), "test": (250, 250, 250, 250)},
    "mendeley v3": {"train": (37206, 11349, 8617, 51140), "val": (0, 0, 0, 0), "test": (250, 250, 250, 250)},
}
PART = "part of the set"
WHITE = 250  # of 255: a line with at least this mean grey level is margin; JPEG compression changes the original 255
_NAME = re.compile(r"([A-Z]+)-(\d+)-(\d+)", re.ASCII)
_SUFFIXES = {"jpeg", "jpg"}


class OCT2017(PatchDataModule):
    """Retinal OCT images; all images of a patient stay in one split.

    Examples:
        >>> import tempfile
        >>> data = OCT2017(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=16)
        ...     cases = data.cases(Path(folder))
        >>> cases[-1].id, sorted({case.class_name for case in cases if case.label})
        ('test/NORMAL-200033-34', ['CNV', 'DME', 'DRUSEN'])
    """

    name = "oct2017"
    where_to_get = (
        "get OCT2017 (Kaggle paultimothymooney/kermany2018, or Mendeley rscbjbr9sj) and lay it out as "
        "OCT2017/train/NORMAL/NORMAL-1001666-1.jpeg, with test and the other classes beside it"
    )
    twin_version = 1
    version = 1

    def __init__(self, *, drop_shared: bool = True, crop_white: bool = True, **arguments: Any) -> None:
        """Set the options of this data set.

        Args:
            drop_shared: remove from train every patient who is also in test (of the 108 312 images of Mendeley v3, this
                leaves 104 649: tvst.arvojournals.org, article 2778252). False keeps the official split with its
                leakage.
            crop_white: remove the white margins that some files have.
            **arguments: arguments of PatchDataModule.
        """
        self.drop_shared, self.crop_white = drop_shared, crop_white
        super().__init__(**arguments)

    def cases(self, root: Path) -> list[Case]:
        """List train and test; val is only counted, to identify the release.

        Raises:
            UserError: a class has no images, a file is misplaced or misnamed, or the counts are not those of a release.
        """
        folder = self._folder(root)
        files = list(_files(folder))
        counts = Counter((split, class_name) for split, class_name, _, _ in files)
        for split, class_name in [("train", "NORMAL"), *(("test", class_name) for class_name in CLASSES)]:
            if not counts[split, class_name]:
                raise UserError(f"{folder / split / class_name}: no JPEG files; complete the data set")
        release(folder, counts)
        cases = [_case(folder, *file) for file in files if file[0] != "val"]
        if self.drop_shared:
            test_patients = {case.patient for case in cases if case.split == "test"}
            cases = [case for case in cases if case.split == "test" or case.patient not in test_patients]
        if not any(case.split == "train" and case.label == 0 for case in cases):
            raise UserError(f"{folder}: every normal patient of train is also in test; set data.drop_shared=false")
        return _with_masks(folder, cases)

    def read(self, case: Case) -> Scan:
        """Read an image without its white margins."""
        scan = super().read(case)
        if not self.crop_white or scan.affine is not None:
            return scan
        rows, columns = without_margin(scan.pixels)
        mask = None if scan.mask is None else scan.mask[:, rows, columns]
        height, width = scan.shape
        origin = Origin((height, width), range(height)[rows], range(width)[columns])
        return replace(scan, pixels=scan.pixels[:, rows, columns], mask=mask, origin=origin)

    @property
    def of_files_alone(self) -> str:
        """The removal of white margins."""
        return "data.crop_white=true" if self.crop_white else ""

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the pixels."""
        return super().protocol() | {"crop_white": self.crop_white}

    def facts(self) -> dict[str, Any]:
        """Add the release and the number of patients that are both in train and in test."""
        folder = self._folder(self.folder)
        files = list(_files(folder))
        train, test = ({file[2] for file in files if file[0] == split} for split in ("train", "test"))
        counts = Counter((split, class_name) for split, class_name, _, _ in files)
        return super().facts() | {"release": release(folder, counts), "patients_in_both": len(train & test)}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic B-scans in the official layout."""
        write_twin(root, seed, size)

    def _folder(self, root: Path) -> Path:
        for folder in (root / "OCT2017", root / "CellData" / "OCT", root):
            if (folder / "train").is_dir() and (folder / "test").is_dir():
                return folder
        raise UserError(f"{root}: no folders train and test here or in OCT2017; {self.where_to_get}")


def release(folder: Path, counts: Counter[tuple[str, str]]) -> str:
    """Identify the release by its counts.

    Args:
        folder: folder of the data set, for error messages.
        counts: number of images of each (split, class).

    Returns:
        A key of RELEASES, or PART if the total number of images is not that of a release.

    Raises:
        UserError: the total is that of a release, but the counts of the classes differ.

    Examples:
        >>> release(Path("OCT2017"), Counter({("train", "NORMAL"): 100}))
        'part of the set'
    """
    known = {
        name: {
            (split, class_name): count
            for split in SPLITS
            for class_name, count in zip(CLASSES, sizes[split], strict=True)
        }
        for name, sizes in RELEASES.items()
    }
    for name, sizes in known.items():
        if all(counts[key] == count for key, count in sizes.items()):
            return name
    for name, sizes in known.items():
        if counts.total() == sum(sizes.values()):
            split, class_name = next(key for key, count in sizes.items() if counts[key] != count)
            raise UserError(
                f"{folder / split / class_name}: {counts[split, class_name]} images, where {name} has "
                f"{sizes[split, class_name]} and the same total of {counts.total()}; files were moved, unpack the data "
                "set again"
            )
    return PART


def without_margin(pixels: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that remain after removing white lines from the border.

    Args:
        pixels: uint8 or uint16 [C, H, W], or floats in [0, 1]; a line is white if its mean is at least WHITE 255ths.

    Returns:
        Slices of rows and of columns; complete ones if every line is white.

    Examples:
        >>> picture = np.full((1, 4, 5), 255, np.uint8)
        >>> picture[:, 1:3, 2:] = 0
        >>> without_margin(picture)
        (slice(1, 3, None), slice(2, 5, None))
    """
    white = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    grey, least = pixels.mean(0), WHITE * white / 255
    rows = _dark(grey.mean(1), least)
    return rows, _dark(grey[rows].mean(0), least)


def _dark(lines: np.ndarray, white: float) -> slice:
    """Return the slice from the first to the last line that is not white."""
    dark = np.flatnonzero(lines < white)
    return slice(int(dark[0]), int(dark[-1]) + 1) if dark.size else slice(0, len(lines))


def _files(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (split, class, patient, file name), sorted."""
    for split in SPLITS:
        for class_name in CLASSES:
            where = folder / split / class_name
            for name in sorted(path.name for path in where.iterdir()) if where.is_dir() else ():
                stem, _, suffix = name.rpartition(".")
                if suffix.lower() not in _SUFFIXES or name.startswith("."):
                    continue
                match = _NAME.fullmatch(stem)
                if match is None:
                    raise UserError(f"{where / name}: the name is not <CLASS>-<patient>-<number>; restore or remove it")
                if match[1] != class_name:
                    raise UserError(f"{where / name}: its name says {match[1]}, not {class_name}; move it")
                yield split, class_name, match[2], name


def _case(folder: Path, split: str, class_name: str, patient: str, name: str) -> Case:
    return Case(
        id=f"{split}/{name.rpartition('.')[0]}",
        patient=patient,
        image=folder / split / class_name / name,
        label=int(class_name != "NORMAL"),
        class_name=class_name,
        split=split,
    )


def _with_masks(folder: Path, cases: list[Case]) -> list[Case]:
    """Add the lesion masks, which only the synthetic twin has."""
    known = {
        path.with_suffix("").relative_to(folder / "masks").as_posix(): path for path in folder.glob("masks/*/*.png")
    }
    return [replace(case, mask=known.get(case.id)) for case in cases] if known else cases
