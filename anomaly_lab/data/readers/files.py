"""Entry point of the readers: read a case of any supported format (pictures, NIfTI, DICOM) as a Scan."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly_lab.data.readers import dicom, nifti, pictures
from anomaly_lab.data.readers.scan import STRICT, Scan, Tolerance
from anomaly_lab.data.readers.tree import files_below, has_plain_name
from anomaly_lab.types import Case, UserError

VERSION = 3  # of what is made of a file; a store that was read otherwise is not reused


def read_scan(
    case: Case, in_channels: int, rules: pictures.Rules = pictures.Rules(), tolerance: Tolerance = STRICT
) -> Scan:
    """Read a case with its mask, if it has one.

    A single DICOM file without a position is read as a picture, a DICOM series as a volume.

    Args:
        case: the case; `case.image` and `case.mask` name its files.
        in_channels: channels of a picture, 1 or 3; volumes always have 1.
        rules: of pictures that are no DICOM, and of masks that are pictures.
        tolerance: what of volumes and DICOM is let pass.

    Raises:
        UserError: a file is unreadable, or the mask does not fit the image.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.png"
        ...     Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(path)
        ...     scan = read_scan(Case(id="a", patient="a", image=path, label=0), in_channels=1)
        >>> scan.shape, scan.pixels.dtype
        ((3, 4), dtype('uint8'))
    """
    with _panics(case):
        return _read(case, in_channels, rules, tolerance)


@contextmanager
def _panics(case: Case) -> Iterator[None]:
    """Turn the panic of a decoder written in Rust, which is no Exception, into a UserError; Ctrl-C passes."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"{case.image}: the decoder broke off ({reason}); replace it, or leave such files out with "
            "data.store.on_bad=skip"
        ) from error


def _read(case: Case, in_channels: int, rules: pictures.Rules, tolerance: Tolerance) -> Scan:
    if nifti.is_nifti(case.image):
        scan = nifti.read_nifti(case.image, tolerance)
        return replace(scan, mask=nifti.read_nifti_mask(case.mask, scan, tolerance=tolerance)) if case.mask else scan
    in_dicom = dicom.is_dicom(case.image)
    if case.slices or (in_dicom and not dicom.is_picture(case.image)):
        scan = dicom.read_series((case.image, *case.slices), tolerance=tolerance)
        return replace(scan, mask=nifti.read_nifti_mask(case.mask, scan, tolerance=tolerance)) if case.mask else scan
    if in_dicom:
        pixels = dicom.read_picture(case.image, in_channels, tolerance=tolerance)
    else:
        pixels = pictures.read_image(case.image, in_channels, rules)
    mask = None if case.mask is None else pictures.read_mask(case.mask, rules)
    if mask is not None and mask.shape[1:] != pixels.shape[1:]:
        sizes = f"{mask.shape[1:]} pixels, its image {pixels.shape[1:]}"
        raise UserError(
            f"{case.mask}: the mask is {sizes}; make the sizes equal, or leave such files out with "
            "data.store.on_bad=skip"
        )
    return Scan(pixels, mask)


def crop(scan: Scan, box: tuple[int, int, int, int], path: Path) -> Scan:
    """Crop a picture, with its mask and foreground, to a region.

    Args:
        scan: the picture.
        box: the region as (row, column, height, width) in pixels.
        path: the file of the picture, for error messages.

    Raises:
        UserError: the region extends beyond the picture.

    Examples:
        >>> scan = Scan(np.arange(12).reshape(1, 3, 4))
        >>> crop(scan, (1, 2, 2, 2), Path("a.png")).pixels.tolist()
        [[[6, 7], [10, 11]]]
    """
    row, column, height, width = box
    rows, columns = scan.shape
    if row < 0 or column < 0 or row + height > rows or column + width > columns:
        raise UserError(
            f"{path}: the region {box} (row, column, height, width) extends beyond the {rows}×{columns} picture; "
            "correct the annotation"
        )
    window = (slice(None), slice(row, row + height), slice(column, column + width))

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[window]

    return replace(scan, pixels=scan.pixels[window], mask=cut(scan.mask), foreground=cut(scan.foreground))


def is_deep(path: Path) -> bool:
    """Return whether a file stores more than 8 bits per pixel, from its header; always True for volumes.

    Examples:
        >>> is_deep(Path("volume.nii.gz"))
        True
    """
    if nifti.is_nifti(path):
        return True
    return dicom.is_deep(path) if dicom.is_dicom(path) else pictures.is_deep(path)


class Found(NamedTuple):
    """What there is to score: the cases, sorted by id, and the files that are none, sorted by path, with the reason."""

    cases: list[Case]
    left_out: dict[Path, str]


def find_cases(source: Path) -> list[Case]:
    """Return the unlabelled cases to score in a folder (pictures, NIfTI volumes and DICOM series) or in one file.

    Args:
        source: a folder, searched recursively, or a file.

    Returns:
        Cases sorted by id. The id is the path relative to `source`, for a series that of its first file; the label is
        0 because the true one is unknown.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "b.nii").touch()
        ...     (Path(folder) / "a.png").touch()
        ...     [case.id for case in find_cases(Path(folder))]
        ['a.png', 'b.nii']
    """
    return survey(source).cases


def survey(source: Path, include: Collection[str] = ()) -> Found:
    """Return the cases to score in a folder or in one file, and the files of other kinds or without a plain name.

    Linked folders are searched; hidden files and what systems leave (`Thumbs.db`, `@eaDir`) are not looked at. A file
    that starts like DICOM and cannot be read is a case, so that whoever reads it says why.

    Args:
        source: a folder, searched recursively, or a file.
        include: kinds of DICOM objects that are scans nevertheless, see `dicom.list_tree`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.WebP", "b.gif", "._a.webp"):
        ...         (Path(folder) / name).touch()
        ...     found = survey(Path(folder))
        >>> [case.id for case in found.cases], {path.name: reason for path, reason in found.left_out.items()}
        (['a.WebP'], {'b.gif': 'not a kind of file that is read'})
    """
    root = source if source.is_dir() else source.parent
    results: list[Path] = []
    files = list(files_below(source, results))
    plain = [path for path in files if has_plain_name(path)]
    known = [path for path in plain if path.suffix.lower() in pictures.SUFFIXES or nifti.is_nifti(path)]
    names = [path.relative_to(root).as_posix() for path in known]
    cases = [Case(id=name, patient=name, image=path, label=0) for name, path in zip(names, known, strict=True)]
    listing = dicom.list_tree(source, include) if len(known) < len(plain) else dicom.Listing([], [], {}, {})
    for path in listing.unreadable.keys() & (set(plain) - set(known)):
        name = path.relative_to(root).as_posix()
        cases.append(Case(id=name, patient=name, image=path, label=0))
    for series in listing.series:
        first, *rest = series.files
        if first in known:  # DICOM under the name of a picture, which is a case already
            continue
        name = first.relative_to(root).as_posix()
        cases.append(Case(id=name, patient=series.patient, image=first, label=0, slices=tuple(rest)))
    taken = {path for case in cases for path in (case.image, *case.slices)}
    left_out = {path: _other(path, listing.left_out.get(path)) for path in sorted(files) if path not in taken}
    left_out |= dict.fromkeys(results, "the folder of a run or prediction")
    return Found(sorted(cases, key=lambda case: case.id), left_out)


def _other(path: Path, kind: str | None) -> str:
    """Say why a file is no case; `kind` is that of a DICOM object that is no scan."""
    if kind is not None:
        return f"DICOM, but no scan: {kind}"
    return "not a kind of file that is read" if has_plain_name(path) else "its name is not UTF-8 or has line breaks"
