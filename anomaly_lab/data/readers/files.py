"""A case to a Scan, whatever its format: pictures, NIfTI, DICOM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly_lab.data.readers import dicom, nifti, pictures
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, UserError


def read_scan(case: Case, in_channels: int) -> Scan:
    """Read a case with its mask, if it has one; a single DICOM file is a picture, a series a volume.

    Raises:
        UserError: a file is unreadable, or the mask does not fit the image.
    """
    if nifti.is_nifti(case.image):
        scan = nifti.read_nifti(case.image)
        return replace(scan, mask=nifti.read_nifti_mask(case.mask, scan)) if case.mask else scan
    if case.slices or (dicom.is_dicom(case.image) and not dicom.is_picture(case.image)):
        scan = dicom.read_series((case.image, *case.slices))
        return replace(scan, mask=nifti.read_nifti_mask(case.mask, scan)) if case.mask else scan
    if dicom.is_dicom(case.image):
        pixels = dicom.read_picture(case.image, in_channels)
    else:
        pixels = pictures.read_image(case.image, in_channels)
    mask = None if case.mask is None else pictures.read_mask(case.mask)
    if mask is not None and mask.shape[1:] != pixels.shape[1:]:
        sizes = f"{mask.shape[1:]} pixels, its image {pixels.shape[1:]}"
        raise UserError(
            f"{case.mask}: the mask is {sizes}; make them equal, or leave such files out: data.store.on_bad=skip"
        )
    return Scan(pixels, mask)


def crop(scan: Scan, box: tuple[int, int, int, int], path: Path) -> Scan:
    """The region (row, column, height, width) of a picture.

    Raises:
        UserError: the region leaves the picture.
    """
    row, column, height, width = box
    rows, columns = scan.shape
    if row < 0 or column < 0 or row + height > rows or column + width > columns:
        raise UserError(f"{path}: the region {box} (row, column, height, width) leaves the {rows}×{columns} picture")
    window = (slice(None), slice(row, row + height), slice(column, column + width))

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[window]

    return replace(scan, pixels=scan.pixels[window], mask=cut(scan.mask), foreground=cut(scan.foreground))


def is_deep(path: Path) -> bool:
    """Whether a file has more than 8 bits a pixel, by its header; volumes always count as deep."""
    if nifti.is_nifti(path):
        return True
    return dicom.is_deep(path) if dicom.is_dicom(path) else pictures.is_deep(path)


def find_cases(source: Path) -> list[Case]:
    """New files to score: pictures and NIfTI volumes below a folder, its DICOM files by series; or one file.

    An id is the path below `source` (of a series its first file's), the label 0, for nobody knows it.
    """
    root = source if source.is_dir() else source.parent
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    known = [path for path in files if path.suffix.lower() in pictures.SUFFIXES or nifti.is_nifti(path)]
    found = [(path.relative_to(root).as_posix(), path, ()) for path in known]
    cases = [Case(id=name, patient=name, image=path, label=0, slices=slices) for name, path, slices in found]
    for series in dicom.find_series(source) if len(known) < len(files) else ():
        first, *rest = series.files
        name = first.relative_to(root).as_posix()
        cases.append(Case(id=name, patient=series.patient, image=first, label=0, slices=tuple(rest)))
    return sorted(cases, key=lambda case: case.id)
