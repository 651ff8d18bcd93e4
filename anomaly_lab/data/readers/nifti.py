"""Reader for NIfTI volumes (nibabel): .nii and .nii.gz, NIfTI-1 and NIfTI-2, axes in the order of the file."""

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

MISPLACED = 0.1  # largest distance between a mask's voxel and its scan's, in voxels: writers round header values
_BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Return whether the file name ends in .nii or .nii.gz.

    Examples:
        >>> is_nifti(Path("brain.nii.gz")), is_nifti(Path("brain.png"))
        (True, False)
    """
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path) -> Scan:
    """Read a volume as pixels [1, X, Y, Z] in the type of the file, or float32 if the header rescales the values.

    Raises:
        UserError: the file is unreadable, is not NIfTI, does not have three axes, is not finite, is constant or has
            no usable affine.

    Examples:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scan.nii.gz"
        ...     nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 1, 5, 1])), path)
        ...     scan = read_nifti(path)
        >>> scan.pixels.shape, scan.pixels.dtype.name, scan.spacing
        ((1, 2, 3, 4), 'int16', (1.0, 1.0, 5.0))
    """
    values, affine = _read(path)
    low, high = float(values.min()), float(values.max())  # min and max propagate NaN
    if not np.isfinite([low, high]).all():
        raise _bad(path, "it holds NaN or infinite voxels")
    if low == high:
        raise _bad(path, f"every voxel is {low:g}, the volume is constant")
    return Scan(values[None], affine=affine)


def read_nifti_mask(path: Path, scan: Scan | None, labels: Collection[int] | None = None) -> np.ndarray:
    """Read the lesion mask of `scan` as bool [1, X, Y, Z]; every voxel that is not 0 belongs to the lesion.

    Args:
        path: the mask file.
        scan: the annotated scan as returned by `read_nifti`; None skips the comparison of shape and affine.
        labels: the allowed values of the mask; None allows every non-negative integer.

    Raises:
        UserError: the file is unreadable, its shape or affine is not that of the scan, or it holds other labels.

    Examples:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mask.nii"
        ...     nib.save(nib.Nifti1Image(np.array([[[0, 1, 4]]], np.uint8), np.eye(4)), path)
        ...     read_nifti_mask(path, scan=None, labels=(0, 1, 2, 4))
        array([[[[False,  True,  True]]]])
    """
    values, affine = _read(path)
    if scan is not None:
        _validate_grid(path, values, affine, scan)
    lesion: np.ndarray = values != 0
    unknown = [value for value in np.unique(values[lesion]).tolist() if not _is_label(value, labels)]
    if unknown:
        allowed = "non-negative integers" if labels is None else ", ".join(map(str, sorted(labels)))
        examples = ", ".join(f"{value:g}" for value in unknown[:5])
        raise _bad(path, f"the mask holds {examples}; the allowed labels are {allowed}")
    return lesion[None]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels [X, Y, Z] and the affine, float64 [4, 4]."""
    import nibabel as nib  # slow to import

    with _reading(path):
        image = nib.load(path, mmap=False)
        if not isinstance(image, nib.Nifti1Image):  # the class of NIfTI-2 is derived from it
            raise _bad(path, "this is not a NIfTI file")
        affine = np.array(image.affine, np.float64)
        shape = _three_axes(path, image.shape)
        proxy: Any = image.dataobj
        values = np.asarray(proxy.get_unscaled()).reshape(shape, order="F")
        slope, inter = proxy.slope, proxy.inter
    return _rescaled(path, values, slope, inter), _checked(path, affine)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert every exception that a broken file causes in nibabel into a UserError that names the file."""
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
    """Return the first three sizes; all further axes must have size 1."""
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise _bad(path, f"it has {len(shape)} axes ({_by(shape)}), a volume has three; split it into volumes")
    if min(shape[:3]) < 1:
        raise _bad(path, f"it has no voxels ({_by(shape)})")
    return shape[:3]


def _rescaled(path: Path, values: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Return values × slope + intercept in the native byte order."""
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
        raise _bad(path, "its affine is singular: two axes of the volume are parallel")
    return affine


def _validate_grid(path: Path, values: np.ndarray, affine: np.ndarray, scan: Scan) -> None:
    """Reject a mask whose voxel grid is not that of its scan."""
    if values.shape != scan.shape:
        raise _bad(path, f"the mask is {_by(values.shape)} voxels, its volume {_by(scan.shape)}")
    off = 0.0 if scan.affine is None else displacement(scan.affine, affine, scan.shape)
    if off > MISPLACED:
        raise _bad(path, f"the mask is not aligned with its volume: its affine is off by up to {off:.3g} voxels")


def _is_label(value: float, labels: Collection[int] | None) -> bool:
    whole = round(value) if np.isfinite(value) else -1
    if abs(value - whole) > 1e-3:  # rescaling in float32 makes labels slightly inexact
        return False
    return whole >= 0 if labels is None else whole in labels


def _by(sizes: tuple[float, ...] | np.ndarray) -> str:
    return "×".join(f"{size:g}" for size in sizes)
