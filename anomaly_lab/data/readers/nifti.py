"""NIfTI volumes to arrays, through nibabel: .nii and .nii.gz, NIfTI-1 and -2, in the order the file has them."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.readers.geometry import displacement
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import UserError

MISPLACED = 0.1  # how far a mask's voxel may lie from its scan's, in voxels: headers are rounded by whoever writes them
_BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path) -> Scan:
    """Read a volume: pixels [1, X, Y, Z] in the file's own type, float32 where the header rescales it.

    Raises:
        UserError: the file is unreadable, not NIfTI, not of three axes, not finite, constant or has no usable affine.
    """
    values, affine = _read(path)
    low, high = float(values.min()), float(values.max())  # NaN goes through both
    if not np.isfinite([low, high]).all():
        raise _bad(path, "it holds NaN or infinite voxels")
    if low == high:
        raise _bad(path, f"every voxel is {low:g}, there is nothing to see in it")
    return Scan(values[None], affine=affine)


def read_nifti_mask(path: Path, scan: Scan | None, labels: Collection[int] | None = None) -> np.ndarray:
    """Read the lesion mask of `scan` as bool [1, X, Y, Z]; whatever is not 0 is lesion.

    Args:
        path: the file.
        scan: what the mask was drawn on, as `read_nifti` gives it; None leaves unasked whether it fits.
        labels: the numbers the mask may hold; None for any whole number from 0 on.

    Raises:
        UserError: the file is unreadable, of another shape or affine than the scan, or holds other labels.
    """
    values, affine = _read(path)
    if scan is not None:
        _fitting(path, values, affine, scan)
    lesion: np.ndarray = values != 0
    found = np.unique(values[lesion])
    unknown = [value for value in found.tolist() if not _is_label(value, labels)]
    if unknown:
        known = "whole numbers from 0 on" if labels is None else ", ".join(map(str, sorted(labels)))
        some = ", ".join(f"{value:g}" for value in unknown[:5])
        raise _bad(path, f"the mask holds {some}; the labels known are {known}")
    return lesion[None]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [X, Y, Z] and the affine, float64 [4, 4]."""
    import nibabel as nib  # takes a while

    with _reading(path):
        image = nib.load(path, mmap=False)
        if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is one of them
            raise _bad(path, "this is not a NIfTI file")
        affine = np.array(image.affine, np.float64)
        shape = _three_axes(path, image.shape)
        proxy: Any = image.dataobj
        values = np.asarray(proxy.get_unscaled()).reshape(shape, order="F")
        slope, inter = proxy.slope, proxy.inter
    return _rescaled(path, values, slope, inter), _checked(path, affine)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes nibabel raise into one line that names the file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; complete the data set") from error
    except EOFError as error:
        raise _bad(path, "the compressed file ends too early") from error
    except ImageFileError as error:
        empty = path.stat().st_size == 0
        raise _bad(path, "the file is empty (0 bytes)" if empty else "this is not a NIfTI file") from error
    except (*_BROKEN, HeaderDataError) as error:
        raise _bad(path, f"the volume cannot be read ({' '.join(str(error).split())})") from error


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; replace it, or leave such files out with data.store.on_bad=skip")


def _three_axes(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The first three sizes, where all that follow are 1."""
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise _bad(path, f"it has {len(shape)} axes ({_by(shape)}), a volume has three; cut it into volumes")
    if min(shape[:3]) < 1:
        raise _bad(path, f"it has no voxels ({_by(shape)})")
    return shape[:3]


def _rescaled(path: Path, values: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """The file's numbers in this machine's byte order, times slope plus intercept."""
    if values.dtype.kind not in "uif":
        raise _bad(path, f"its voxels are of type {values.dtype}, only real numbers can be read")
    if (slope, inter) != (1, 0):
        values = values.astype(np.float32)
        values *= np.float32(slope)
        values += np.float32(inter)
    native: np.ndarray = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native


def _checked(path: Path, affine: np.ndarray) -> np.ndarray:
    if not np.isfinite(affine).all():
        raise _bad(path, "its affine holds NaN or infinite numbers")
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not spacing.all():
        raise _bad(path, f"its spacing is {_by(spacing)} mm")
    if np.linalg.matrix_rank(axes / spacing) < 3:
        raise _bad(path, "its affine is singular, two axes of the volume run the same way")
    return affine


def _fitting(path: Path, values: np.ndarray, affine: np.ndarray, scan: Scan) -> None:
    """Refuse a mask that does not lie on its scan voxel by voxel."""
    if values.shape != scan.shape:
        raise _bad(path, f"the mask is {_by(values.shape)} voxels, its volume {_by(scan.shape)}")
    off = 0.0 if scan.affine is None else displacement(scan.affine, affine, scan.shape)
    if off > MISPLACED:
        raise _bad(path, f"the mask does not lie on its volume, its affine puts voxels up to {off:.3g} voxels away")


def _is_label(value: float, labels: Collection[int] | None) -> bool:
    whole = round(value) if np.isfinite(value) else -1
    if abs(value - whole) > 1e-3:  # rescaling a mask in float32 moves its labels a little
        return False
    return whole >= 0 if labels is None else whole in labels


def _by(sizes: tuple[float, ...] | np.ndarray) -> str:
    return "×".join(f"{size:g}" for size in sizes)
