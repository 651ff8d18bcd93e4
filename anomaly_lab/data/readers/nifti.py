"""Reader and writer for NIfTI volumes (nibabel): .nii and .nii.gz, NIfTI-1 and NIfTI-2, axes in the order of the file.

The affine is the sform, else the qform; a header without either has axes that point left, anterior and superior. Its
unit, micrometre or metre, becomes mm.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.readers.geometry import displacement, is_sheared, unsheared
from anomaly_lab.data.readers.scan import STRICT, Scan, Tolerance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

MISPLACED = 0.1  # largest distance between a mask's voxel and its scan's, in voxels: writers round header values
_MM = {1: 1000.0, 3: 0.001}  # of the header's codes for metre and micrometre; all others mean mm
_MOST_PACKED = 1032  # bytes that one byte of gzip can become
_SCANNER = 1  # code of a form whose space is that of the scanner
_SPACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def is_nifti(path: Path) -> bool:
    """Return whether the file name ends in .nii or .nii.gz.

    Examples:
        >>> is_nifti(Path("brain.nii.gz")), is_nifti(Path("brain.png"))
        (True, False)
    """
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, tolerance: Tolerance = STRICT) -> Scan:
    """Read a volume as pixels [1, X, Y, Z] in the type of the file, or float32 if the header rescales the values.

    Args:
        path: the file.
        tolerance: what becomes of NaN voxels, and how many voxels are read. NaN voxels that are background take the
            lowest value of all others and lie outside `Scan.foreground`.

    Raises:
        UserError: the file is unreadable, is not NIfTI, does not have three axes, is larger than allowed, is not
            finite, is constant or has no usable affine.

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
    values, affine = _read(path, tolerance)
    known = None
    low, high = float(values.min()), float(values.max())  # min and max propagate NaN
    if tolerance.nan == "background" and math.isnan(low):
        known = ~np.isnan(values)
        if not known.any():
            raise _bad(path, "every voxel is NaN")
        low, high = float(values[known].min()), float(values[known].max())
        values[~known] = low
    if not np.isfinite([low, high]).all():
        remedy = "set data.volume.nan=background if NaN stands for it, " if np.isnan(values).any() else ""
        raise _bad(path, "it holds NaN or infinite voxels", remedy)
    if low == high:
        raise _bad(path, f"every voxel is {low:g}, the volume is constant")
    return Scan(values[None], affine=affine, foreground=None if known is None else known[None])


def read_nifti_mask(
    path: Path, scan: Scan | None, labels: Collection[int] | None = None, tolerance: Tolerance = STRICT
) -> np.ndarray:
    """Read the lesion mask of `scan` as bool [1, X, Y, Z]; every voxel that is not 0 belongs to the lesion.

    Args:
        path: the mask file.
        scan: the annotated scan as returned by `read_nifti`; None skips the comparison of shape and affine.
        labels: the allowed values of the mask; None allows every non-negative integer.
        tolerance: how many voxels are read.

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
    values, affine = _read(path, tolerance)
    if scan is not None:
        _validate_grid(path, values, affine, scan)
    lesion: np.ndarray = values != 0
    unknown = [value for value in np.unique(values[lesion]).tolist() if not _is_label(value, labels)]
    if unknown:
        allowed = "non-negative integers" if labels is None else ", ".join(map(str, sorted(labels)))
        examples = ", ".join(f"{value:g}" for value in unknown[:5])
        raise _bad(path, f"the mask holds {examples}; the allowed labels are {allowed}")
    return lesion[None]


def header_facts(path: Path) -> dict[str, float | str]:
    """Return how a file codes its volume: type of its voxels, rescaling, and which forms say where it lies.

    Raises:
        UserError: the file is unreadable.

    Examples:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scan.nii.gz"
        ...     nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4)), path)
        ...     header_facts(path)["voxels"]
        'int16'
    """
    import nibabel as nib

    with _reading(path):
        image: Any = nib.load(regular(path))
        header = image.header
        facts: dict[str, float | str] = {"voxels": str(header.get_data_dtype()), "bits": int(header["bitpix"])}
        slope = float(image.dataobj.slope)
        return facts | {
            "slope": slope if math.isfinite(slope) else 1.0,
            "qform_code": int(header["qform_code"]),
            "sform_code": int(header["sform_code"]),
        }


def save_map(path: Path, values: np.ndarray, affine: np.ndarray, source: Path | None = None) -> None:
    """Write a map as NIfTI, float32, where its scan lies, with nothing of any other header in it.

    Viewers differ in which form of a header they follow. So a map of a NIfTI scan has the scan's own sform, qform, both
    codes and unit, and all other scans give both forms. The qform of a sheared volume, such as a CT with a tilted
    gantry, is without the shear, as viewers built on ITK show such a series: they can open nothing else.

    Args:
        path: .nii or .nii.gz.
        values: [*S], three axes, in the order of `affine`.
        affine: voxel indices to mm (RAS+), [4, 4]; kept to float32, as the format has it.
        source: the file of the scan; if it is not NIfTI, the affine alone decides.

    Examples:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "map.nii.gz"
        ...     save_map(path, np.zeros((2, 3, 4)), np.diag([1.0, 1, 5, 1]))
        ...     header = nib.load(path).header
        >>> [float(edge) for edge in header.get_zooms()], int(header["qform_code"]), int(header["sform_code"])
        ([1.0, 1.0, 5.0], 1, 1)
    """
    import nibabel as nib

    make: Any = nib.Nifti1Image
    if source is not None and is_nifti(source):
        with _reading(source):
            own: Any = nib.load(regular(source))
        make = type(own)  # NIfTI-2, where the scan is
        header = make.header_class()
        for name in _SPACE:
            header[name] = own.header[name]
        header["pixdim"][:4] = own.header["pixdim"][:4]
    else:
        header = make.header_class()
        header.set_sform(affine, _SCANNER)
        header.set_qform(unsheared(affine), _SCANNER)
        header.set_xyzt_units("mm")
    if is_sheared(affine) and not header["qform_code"]:
        header.set_qform(unsheared(affine / np.array([[_mm(header)]] * 3 + [[1]])), _SCANNER)
    nib.save(make(np.asarray(values, np.float32), None, header), path)


def _read(path: Path, tolerance: Tolerance) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels [X, Y, Z] and the affine to mm, float64 [4, 4]."""
    import nibabel as nib  # slow to import

    with _reading(path):
        image: Any = nib.load(regular(path), mmap=False)
        if not isinstance(image, nib.Nifti1Image):  # the class of NIfTI-2 is derived from it
            raise _bad(path, "this is not a NIfTI file")
        affine = np.array(image.affine, np.float64)
        affine[:3] *= _mm(image.header)
        shape = _three_axes(path, image.shape)
        _refuse_too_large(path, image, tolerance)
        proxy: Any = image.dataobj
        values = np.asarray(proxy.get_unscaled()).reshape(shape, order="F")
        slope, inter = proxy.slope, proxy.inter
    return _rescaled(path, values, slope, inter), _checked(path, affine)


def _mm(header: Any) -> float:
    """Length in mm of the unit that a header measures space in."""
    return _MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _refuse_too_large(path: Path, image: Any, tolerance: Tolerance) -> None:
    """Compare what the header claims with the size of the file and the limit, before any memory is taken."""
    voxels = math.prod(map(int, image.shape))
    claimed = int(image.dataobj.offset) + voxels * image.get_data_dtype().itemsize
    held = path.stat().st_size * (_MOST_PACKED if path.name.lower().endswith(".gz") else 1)
    if claimed > held:
        raise _bad(path, f"the volume cannot be read (Expected {claimed} bytes, the file has at most {held})")
    if voxels > tolerance.max_voxels:
        raise _bad(
            path,
            f"it has {voxels} voxels ({_by(image.shape)})",
            f"raise data.volume.max_voxels={tolerance.max_voxels}, ",
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert every exception that a broken file causes in nibabel into a UserError that names the file."""
    from nibabel.filebasedimages import ImageFileError

    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; complete the data set") from error
    except EOFError as error:
        raise _bad(path, "the compressed file ends too early") from error
    except ImageFileError as error:
        empty = path.stat().st_size == 0
        raise _bad(path, "the file is empty (0 bytes)" if empty else "this is not a NIfTI file") from error
    except MemoryError as error:
        raise _bad(path, "there is not enough memory for the volume") from error
    except Exception as error:  # a malformed header can raise anything
        raise _bad(path, f"the volume cannot be read ({' '.join(str(error).split())})") from error


def _bad(path: Path, fault: str, remedy: str = "") -> UserError:
    return UserError(f"{path}: {fault}; {remedy or 'replace it, '}or leave such files out with data.store.on_bad=skip")


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
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
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
