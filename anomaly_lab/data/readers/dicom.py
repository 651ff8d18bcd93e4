"""Reader for DICOM (pydicom): series as volumes in modality units (HU for CT), single pictures as displayed.

A picture passes through the display pipeline of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, inversion of
MONOCHROME1. A volume passes only through the first step, with the rescale of each slice; its window is returned
separately.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from anomaly_lab.data.readers import dicom_geometry, dicom_voi
from anomaly_lab.data.readers.dicom_geometry import GROUPS, Gaps, Lattice, frame_count, frames_of, of_frame, ordered
from anomaly_lab.data.readers.dicom_header import bad, hashed, header_of, is_dicom, numbers, reading, text, whole
from anomaly_lab.data.readers.dicom_voi import table_of, window_of, windowed
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tree import files_below
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Listing", "Series", "find_series", "is_deep", "is_dicom", "list_tree", "read_picture", "read_series"]

_ALL = np.zeros(0, np.uint8)  # sentinel: a packed plane that is padding everywhere
_MISFIT = "its pixel data do not match their description in the header"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_WITHOUT_IMAGE = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR, the index of a medium
_LISTED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows")
_KIND = ("SamplesPerPixel", "PhotometricInterpretation", "BitsStored")
_LUTS = ("ModalityLUTSequence", "VOILUTSequence")
_CODECS = (  # start of the name of a transfer syntax: packages that decode it, all permissively licensed
    ("High-Throughput", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG", "python-gdcm"),
    ("RLE", "pylibjpeg pylibjpeg-rle"),
)


class Series(NamedTuple):
    """Files with the same SeriesInstanceUID; identifiers are hashed.

    Attributes:
        key: 12 hex digits, hash of the SeriesInstanceUID.
        patient: 12 hex digits, hash of the PatientID or, if that is empty, of the StudyInstanceUID.
        modality: CT, MR, DX, …
        files: ordered by name; `read_series` orders them in space.
    """

    key: str
    patient: str
    modality: str
    files: tuple[Path, ...]


class Listing(NamedTuple):
    """Content of a folder: image series, and files that are not DICOM images (licences, reports, plans, masks)."""

    series: list[Series]
    others: list[Path]


def find_series(root: Path) -> list[Series]:
    """Return the image series below `root`, in the order of their first files.

    The files of a series may be in different folders.

    Raises:
        UserError: a file starts like DICOM but cannot be read.

    Examples:
        >>> import shutil, tempfile
        >>> from pydicom.data import get_testdata_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(get_testdata_file("CT_small.dcm"), folder)
        ...     [(series.modality, len(series.files)) for series in find_series(Path(folder))]
        [('CT', 1)]
    """
    return list_tree(root).series


def list_tree(root: Path) -> Listing:
    """Return the image series below `root` and all other files.

    Raises:
        UserError: a file starts like DICOM but cannot be read.

    Examples:
        >>> import shutil, tempfile
        >>> from pydicom.data import get_testdata_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(get_testdata_file("CT_small.dcm"), folder)
        ...     (Path(folder) / "LICENSE").touch()
        ...     listing = list_tree(Path(folder))
        >>> len(listing.series), [path.name for path in listing.others]
        (1, ['LICENSE'])
    """
    members: dict[str, list[Path]] = defaultdict(list)
    headers: dict[str, Dataset] = {}
    others = []
    for path in sorted(path for path in files_below(root) if path.is_file()):
        header = _image_header(path)
        if header is None:
            others.append(path)
            continue
        key = _series_key(header, path, root)
        headers.setdefault(key, header)
        members[key].append(path)
    return Listing([_series(key, headers[key], files) for key, files in members.items()], others)


def series_key(uid: str) -> str:
    """Return the key of the series with this SeriesInstanceUID.

    Examples:
        >>> len(series_key("1.2.826.0.1.3680043.8.498.1"))
        12
    """
    return hashed("series", uid)


def read_series(files: Sequence[Path], voi: str | None = "first", gaps: Gaps = "refuse") -> Scan:
    """Read a series as a volume; it consists of one file per slice or of multi-frame files.

    Padding takes the lowest value outside the padding. MONOCHROME1 is not inverted, because values are kept in
    modality units.

    Args:
        files: the files of the series, in any order.
        voi: which window of the middle slice becomes `Scan.window`: "first", or the explanation of a window in the
            header; None for no window.
        gaps: "refuse" rejects a series with missing slices; "blank" fills them with the lowest value, so that all
            other slices keep their positions.

    Returns:
        pixels [1, columns, rows, slices] in modality units, int16 if every value is an integer in its range, otherwise
        float32; affine to mm (RAS+); window, if the header has one.

    Raises:
        UserError: a file is unreadable, in colour, without pixel data, or its compression needs a package that is not
            installed; the files are not one regular volume (`dicom_geometry`); the window is invalid; the volume is
            constant.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> scan = read_series([Path(get_testdata_file("CT_small.dcm"))])
        >>> scan.shape, scan.pixels.dtype, [round(edge, 2) for edge in scan.spacing]
        ((128, 128, 1), dtype('int16'), [0.66, 0.66, 5.0])
    """
    frames = []
    for path in files:
        header = header_of(path, [*dicom_geometry.TAGS, *_KIND])
        with reading(path):
            _require_grey(path, header)
            frames += frames_of(path, header)
    lattice = ordered(frames, gaps)
    middle = lattice.frames[len(frames) // 2]
    window = window_of(middle.path, header_of(middle.path, [*dicom_voi.TAGS, *GROUPS]), middle.number, voi)
    volume = _volume(lattice)
    return Scan(volume.transpose(2, 1, 0)[None], affine=lattice.affine, window=window and (window.centre, window.width))


def read_picture(path: Path, in_channels: int, voi: str | None = "first") -> np.ndarray:
    """Read a single-frame file, such as a chest X-ray, as displayed: [C, H, W], from black to white.

    The full range of the output corresponds to the VOI LUT or window if the header has one (values outside it become
    black or white, as in a viewer), otherwise to the stored bits, in which case nothing is clipped. Padding is as dark
    as the darkest pixel.

    Args:
        path: the file.
        in_channels: 1 for grey, 3 for colour or repeated grey.
        voi: which VOI LUT or window to use: "first", or its explanation in the header; None for none.

    Returns:
        uint8 if 8 bits or fewer are stored, otherwise uint16.

    Raises:
        UserError: the file is unreadable, in colour although `in_channels` is 1, has several frames or no pixel data,
            is compressed in a way that needs a package which is not installed, is not finite or is constant; the
            window is invalid.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> pixels = read_picture(Path(get_testdata_file("CT_small.dcm")), in_channels=1)
        >>> pixels.shape, pixels.dtype
        ((1, 128, 128), dtype('uint16'))
    """
    dataset = whole(path)
    with reading(path):
        if frame_count(dataset) > 1:
            raise bad(path, f"it has {frame_count(dataset)} frames, where one is expected")
        if in_channels == 1:
            _require_grey(path, dataset)
    (values,) = _decoded(path, dataset, [0])
    with reading(path, _MISFIT):
        if text(dataset, "PhotometricInterpretation") in _GREY:
            shown = np.repeat(_shown(path, dataset, values, voi)[None], in_channels, axis=0)
        else:
            shown = _colours(dataset, values)
        dtype = np.uint16 if _has_deep_pixels(dataset) else np.uint8
    if shown.min() == shown.max():
        raise bad(path, "every pixel is the same, the picture is constant")
    return np.asarray(np.rint(shown * np.iinfo(dtype).max), dtype)


def is_deep(path: Path) -> bool:
    """Return whether a file stores more than 8 bits per pixel or is part of a volume; False if it is unreadable.

    Only the header is read.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> is_deep(Path(get_testdata_file("CT_small.dcm")))
        True
    """
    if not is_dicom(path):
        return False
    try:
        header = header_of(path, [*_KIND, "NumberOfFrames", "ImagePositionPatient", *_LUTS])
        with reading(path):
            return frame_count(header) > 1 or "ImagePositionPatient" in header or _has_deep_pixels(header)
    except UserError:
        return False  # the full read, which follows, reports the error


def is_picture(path: Path) -> bool:
    """Return whether a file is a single picture: it has one frame and no position in a volume.

    Raises:
        UserError: the file cannot be read as DICOM.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> is_picture(Path(get_testdata_file("CT_small.dcm")))  # a slice of a series
        False
    """
    header = header_of(path, ["NumberOfFrames", "ImagePositionPatient"])
    with reading(path):
        return frame_count(header) == 1 and "ImagePositionPatient" not in header


def _image_header(path: Path) -> Dataset | None:
    """Return the header elements that `list_tree` needs; None if the file is not a DICOM image."""
    if not is_dicom(path):
        return None
    header = header_of(path, _LISTED)
    with reading(path):
        if text(header.file_meta, "MediaStorageSOPClassUID") == _WITHOUT_IMAGE or not header.get("Rows"):
            return None
    return header


def _series_key(header: Dataset, path: Path, root: Path) -> str:
    with reading(path):
        uid = text(header, "SeriesInstanceUID")
    return series_key(uid) if uid else hashed("folder", path.parent.relative_to(root).as_posix())


def _series(key: str, header: Dataset, files: list[Path]) -> Series:
    with reading(files[0]):
        person, study = text(header, "PatientID"), text(header, "StudyInstanceUID")
        patient = hashed("patient", person) if person else hashed("study", study) if study else key
        modality = text(header, "Modality")
    return Series(key, patient, modality if modality.isalnum() and len(modality) < 5 else "?", tuple(files))


def _require_grey(path: Path, header: Dataset) -> None:
    photometric = text(header, "PhotometricInterpretation")
    if int(header.get("SamplesPerPixel") or 1) != 1 or photometric not in {*_GREY, ""}:
        raise bad(path, "it is in colour, where grey is expected (set data.in_channels=3 to read pictures in colour)")


def _shown(path: Path, dataset: Dataset, stored: np.ndarray, voi: str | None) -> np.ndarray:
    """Convert stored pixels [rows, columns] to brightness in [0, 1]."""
    values = _in_units(path, dataset, 0, stored)
    table = table_of(path, dataset, voi)
    window = window_of(path, dataset, 0, voi) if table is None else None
    if table is not None:
        shown = table(values)
    elif window is not None:
        shown = windowed(values, window)
    else:
        low, high = _range(path, dataset, stored)
        shown = (values - low) / (high - low)
    if text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        shown = 1 - shown
    outside = _padding(dataset, stored)
    if outside is not None and not outside.all():
        shown[outside] = shown[~outside].min()
    return shown


def _range(path: Path, dataset: Dataset, stored: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest value in modality units that the stored bits or the modality LUT can express."""
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    if stored.dtype.kind == "f":
        raise bad(path, "its pixels are floating-point numbers without a window, so black and white are undefined")
    bits = int(dataset.BitsStored)
    if bits > 16:
        raise bad(path, f"it stores {bits} bits per pixel without a window, a picture has at most 16")
    first = -(1 << bits - 1) if int(dataset.get("PixelRepresentation") or 0) else 0
    slope, intercept = _rescale(path, dataset, 0)
    low, high = sorted(slope * end + intercept for end in (first, first + (1 << bits) - 1))
    return low, high


def _colours(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Convert decoded colour [rows, columns, 3] or palette indices [rows, columns] to [3, H, W] in [0, 1]."""
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        values = apply_color_lut(values, dataset)
        bits = 8 * values.dtype.itemsize
    else:
        bits = int(dataset.BitsStored)
    return np.ascontiguousarray(values[..., :3].transpose(2, 0, 1) / (2.0**bits - 1))


def _has_deep_pixels(header: Dataset) -> bool:
    tables = [int(table.LUTDescriptor[2]) for luts in _LUTS for table in header.get(luts) or []]
    return max(int(header.get("BitsStored") or 16), *tables, 0) > 8


def _volume(lattice: Lattice) -> np.ndarray:
    """Return [places, rows, columns], int16 if every value is an integer in its range, otherwise float32."""
    depth = lattice.places[-1] + 1
    volume = np.empty((depth, *lattice.frames[0].shape), np.int16)
    outside = dict.fromkeys(set(range(depth)) - set(lattice.places), _ALL)
    for place, values, padding in _planes(lattice):
        if volume.dtype == np.int16 and not _fits(values):
            volume = volume.astype(np.float32)
        volume[place] = values
        if padding is not None and padding.any():
            outside[place] = np.packbits(padding)  # one bit per voxel
    folder = lattice.frames[0].path.parent
    if outside:
        _fill_outside(folder, volume, outside)
    if volume.min() == volume.max():
        raise bad(folder, f"every voxel of the series is {volume.flat[0]:g}, the volume is constant")
    return volume


def _planes(lattice: Lattice) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yield the place in the volume, the values in modality units and the padding of each frame, file by file."""
    of_file: dict[Path, dict[int, int]] = defaultdict(dict)
    for place, frame in zip(lattice.places, lattice.frames, strict=True):
        of_file[frame.path][frame.number] = place
    for path, places in of_file.items():
        dataset, wanted = whole(path), sorted(places)
        for number, stored in zip(wanted, _decoded(path, dataset, wanted), strict=True):
            with reading(path, _MISFIT):
                values, padding = _in_units(path, dataset, number, stored), _padding(dataset, stored)
            if values.shape != lattice.frames[0].shape:
                raise bad(path, "its number of pixels is not the one in its header")
            yield places[number], values, padding


def _decoded(path: Path, dataset: Dataset, wanted: list[int]) -> Iterator[np.ndarray]:
    """Yield the stored pixels of the wanted frames, [rows, columns] or, in colour, [rows, columns, 3]."""
    from pydicom.pixels.utils import iter_pixels

    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise bad(path, "it has no pixel data")
    compression = _compression(path, dataset)
    frames = iter_pixels(dataset, indices=wanted)
    for _ in wanted:
        with reading(path, f"its pixels ({compression}) cannot be decoded"):
            stored = next(frames)
        yield stored


def _compression(path: Path, dataset: Dataset) -> str:
    """Return the name of the transfer syntax in the DICOM standard.

    Raises:
        UserError: the transfer syntax is unknown, or no installed package can decode it.
    """
    from pydicom.pixels.decoders.base import get_decoder

    with reading(path):
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            raise bad(path, "its pixels are compressed with an unsupported transfer syntax") from None
        if not available:
            packages = next((names for start, names in _CODECS if syntax.name.startswith(start)), "pydicom")
            raise UserError(f"{path}: its pixels are compressed as {syntax.name}; pip install {packages}")
        return str(syntax.name)


def _in_units(path: Path, dataset: Dataset, number: int, stored: np.ndarray) -> np.ndarray:
    """Apply the modality LUT or the rescale of the frame; integers stay integers, everything else is float64."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(stored, dataset)).astype(np.int64)
    slope, intercept = _rescale(path, dataset, number)
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        return stored.astype(np.int64) * int(slope) + int(intercept)
    values = stored * slope + intercept
    if not np.isfinite(values).all():
        raise bad(path, "it holds NaN or infinite pixels")
    return values


def _rescale(path: Path, dataset: Dataset, number: int) -> tuple[float, float]:
    place = of_frame(dataset, number, "PixelValueTransformationSequence")
    slope = (numbers(place.get("RescaleSlope")) or (1.0,))[0]
    intercept = (numbers(place.get("RescaleIntercept")) or (0.0,))[0]
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        raise bad(path, f"its rescale is {slope:g} × value + {intercept:g}")
    return slope, intercept


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Return where the stored pixels hold the padding value or lie in the padding range; None without padding."""
    ends = [*numbers(dataset.get("PixelPaddingValue"))[:1], *numbers(dataset.get("PixelPaddingRangeLimit"))[:1]]
    if not ends or "PixelPaddingValue" not in dataset or stored.dtype.kind not in "iu":
        return None
    # Some writers store -2000 as 63536: unsigned in the header although the pixels are signed.
    low, high = sorted(np.array(ends, np.int64).astype(stored.dtype)[[0, -1]])
    return np.asarray((stored >= low) & (stored <= high))


def _fill_outside(path: Path, volume: np.ndarray, outside: dict[int, np.ndarray]) -> None:
    """Set padding and missing planes to the lowest value of all other voxels; `outside` holds packed masks."""

    def mask(place: int) -> np.ndarray:
        bits = outside.get(place)
        shape = volume.shape[1:]
        if bits is None or bits is _ALL:
            return np.full(shape, bits is _ALL)
        return np.unpackbits(bits, count=math.prod(shape)).reshape(shape).view(bool)

    minima = [values.min() for values in (plane[~mask(place)] for place, plane in enumerate(volume)) if values.size]
    if not minima:
        raise bad(path, "every voxel of the series is padding")
    for place in outside:
        volume[place][mask(place)] = min(minima)


def _fits(values: np.ndarray) -> bool:
    """Return whether the values are integers in the range of int16."""
    limits = np.iinfo(np.int16)
    return values.dtype.kind == "i" and bool(values.min() >= limits.min and values.max() <= limits.max)
