"""Reader for DICOM (pydicom): series as volumes in modality units (HU for CT), single pictures as displayed.

A picture passes through the display pipeline of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, inversion of
MONOCHROME1. A volume passes only through the first step, with the rescale of each slice; its window is returned
separately.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.readers import dicom_geometry, dicom_voi
from anomaly_lab.data.readers.dicom_decoder import decode
from anomaly_lab.data.readers.dicom_geometry import (
    GROUPS,
    Frame,
    Gaps,
    Lattice,
    frame_count,
    frames_of,
    of_frame,
    ordered,
)
from anomaly_lab.data.readers.dicom_header import bad, hashed, header_of, is_dicom, numbers, reading, text, whole
from anomaly_lab.data.readers.dicom_voi import LookupTable, lookup_table, table_of, window_of, windowed
from anomaly_lab.data.readers.patients import patient_names
from anomaly_lab.data.readers.scan import STRICT, Scan, Tolerance
from anomaly_lab.data.readers.tree import files_below
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Listing", "Series", "find_series", "is_deep", "is_dicom", "list_tree", "read_picture", "read_series"]

_ALL = np.zeros(0, np.uint8)  # sentinel: a packed plane that is padding everywhere
_MISFIT = "its pixel data do not match their description in the header"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_IN_PLANES = {"CT", "MR", "PT"}  # modalities whose objects must have a position in space
_LISTED = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPClassUID", "ImageType"),
    *("Rows", "NumberOfFrames", "ImagePositionPatient"),
)
_KIND = ("SamplesPerPixel", "PhotometricInterpretation", "BitsStored")
_RESCALE = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
_LUTS = ("ModalityLUTSequence", "VOILUTSequence")
_CODECS = (  # start of the name of a transfer syntax: packages that decode it, all permissively licensed
    ("High-Throughput", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG", "python-gdcm"),
    ("RLE", "pylibjpeg pylibjpeg-rle"),
)


class Series(NamedTuple):
    """Files that are one scan: of the same SeriesInstanceUID, patient and modality; no identifier is in it.

    Attributes:
        key: 12 hex digits, hash of the SeriesInstanceUID; the second scan under one UID adds "-2", and so on.
        patient: "patient 001" for whoever comes first in the tree, and so on; see `list_tree`.
        modality: CT, MR, DX, …
        files: ordered by name; `read_series` orders them in space.
    """

    key: str
    patient: str
    modality: str
    files: tuple[Path, ...]


class Listing(NamedTuple):
    """Content of a folder.

    Attributes:
        series: the scans.
        others: all other files.
        left_out: those of them that are DICOM but no scan, with their kind: the name of their SOP class, such as
            "Segmentation Storage", or "localizer" or "mosaic".
        results: folders of runs and predictions, which were not entered.
        unreadable: those of them that start like DICOM and cannot be read, with the error.
    """

    series: list[Series]
    others: list[Path]
    left_out: dict[Path, str]
    unreadable: dict[Path, UserError]
    results: Sequence[Path] = ()


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
    listing = list_tree(root)
    for error in listing.unreadable.values():
        raise error
    return listing.series


def list_tree(root: Path, include: Collection[str] = (), patient_of: Callable[[Path], str] | None = None) -> Listing:
    """Return the image series below `root` and all other files.

    A scan is what a SOP class for images holds, or one that is not known. Segmentations, dose, screenshots (secondary
    captures), presentation states, reports, localizers and mosaics (a volume's slices tiled in one picture) are none. A
    SeriesInstanceUID that several patients or modalities share is one series for each, and pictures that have no place
    in space, such as the two views of a chest, are a series each.

    Patients are told apart by PatientID, where it is empty by StudyInstanceUID, and are numbered in the order of
    their first files: a hash of a PatientID would give it away to whoever tries all numbers of a hospital.

    Args:
        root: a folder, or one file, which is taken whatever kind it is.
        include: kinds that are scans nevertheless, by the names of `Listing.left_out`.
        patient_of: says whose a file is, instead of its header.

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
    members: dict[_Origin, list[Path]] = defaultdict(list)
    others, left_out, unreadable = [], dict[Path, str](), dict[Path, UserError]()
    base, results = root.parent if root.is_file() else root, list[Path]()
    for path in sorted(files_below(root, results)):  # is_dicom says no to a link to nothing
        try:
            origin = _origin(path, base)
        except UserError as error:
            unreadable[path] = error
            origin = None
        if origin is not None and (not origin.kind or origin.kind in include or root.is_file()):
            person = origin.person if patient_of is None else patient_of(path)
            members[origin._replace(person=person, kind="")].append(path)
            continue
        others.append(path)
        if origin is not None:
            left_out[path] = origin.kind
    return Listing(_numbered(members), others, left_out, unreadable, results)


class _Origin(NamedTuple):
    """What a file's header says of where it belongs; files of one scan have equal ones. `person` never leaves here."""

    key: str
    person: str
    modality: str
    picture: Path | None
    kind: str


def _origin(path: Path, root: Path) -> _Origin | None:
    """Return where a file belongs; None if it is not DICOM."""
    if not is_dicom(path):
        return None
    header = header_of(path, _LISTED)
    with reading(path):
        uid, modality = text(header, "SeriesInstanceUID"), text(header, "Modality")
        key = series_key(uid) if uid else hashed("folder", path.parent.relative_to(root).as_posix())
        person = text(header, "PatientID") or text(header, "StudyInstanceUID") or key
        flat = "ImagePositionPatient" not in header and int(header.get("NumberOfFrames") or 1) == 1
        kind, in_planes = _kind(header), modality in _IN_PLANES
    shown = modality if modality.isalnum() and len(modality) < 5 else "?"
    return _Origin(key, person, shown, path if flat and not in_planes else None, kind)


def _kind(header: Dataset) -> str:
    """Return what an object is that is not a scan; empty if it is one, or of a SOP class that nobody knows."""
    from pydicom.uid import UID

    uid = UID(text(header, "SOPClassUID") or text(header.file_meta, "MediaStorageSOPClassUID"))
    name = uid.name if uid.name != uid else ""  # the standard's, so nobody's secret
    if not header.get("Rows"):
        if not uid:
            raise ValueError("neither an image nor the name of an object")
        return name if name and "Image Storage" not in name else "object without an image"
    if name and ("Image Storage" not in name or "Secondary Capture" in name):
        return name
    types = header.get("ImageType") or ""
    kinds = [types] if isinstance(types, str) else list(types)
    return next((kind.lower() for kind in ("LOCALIZER", "MOSAIC") if kind in kinds), "")


def _numbered(members: dict[_Origin, list[Path]]) -> list[Series]:
    """Return the series with the numbers of their patients in place of who they are."""
    number = patient_names(origin.person for origin in members)
    times = Counter[str]()
    series = []
    for origin, files in members.items():
        times[origin.key] += 1
        key = origin.key if times[origin.key] == 1 else f"{origin.key}-{times[origin.key]}"
        series.append(Series(key, number[origin.person], origin.modality, tuple(files)))
    return series


def series_key(uid: str) -> str:
    """Return the key of the series with this SeriesInstanceUID.

    Examples:
        >>> len(series_key("1.2.826.0.1.3680043.8.498.1"))
        12
    """
    return hashed("series", uid)


def read_series(
    files: Sequence[Path], voi: str | None = "first", gaps: Gaps = "refuse", tolerance: Tolerance = STRICT
) -> Scan:
    """Read a series as a volume; it consists of one file per slice or of multi-frame files.

    Padding takes the lowest value outside the padding. MONOCHROME1 is not inverted, because values are kept in
    modality units.

    Args:
        files: the files of the series, in any order.
        voi: which window of the middle slice becomes `Scan.window`: "first", or the explanation of a window in the
            header; None for no window.
        gaps: "refuse" rejects a series with missing slices; "blank" fills them with the lowest value, so that all
            other slices keep their positions.
        tolerance: what becomes of NaN voxels, and how many voxels are read. NaN voxels that are background are padding.

    Returns:
        pixels [1, columns, rows, slices] in modality units, int16 if every value is an integer in its range, otherwise
        float32; affine to mm (RAS+); window, if the header has one.

    Raises:
        UserError: a file is unreadable, in colour, without pixel data, or its compression needs a package that is not
            installed; the files are not one regular volume (`dicom_geometry`); some have a rescale and others none; the
            window is invalid; the volume is constant or larger than allowed.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> scan = read_series([Path(get_testdata_file("CT_small.dcm"))])
        >>> scan.shape, scan.pixels.dtype, [round(edge, 2) for edge in scan.spacing]
        ((128, 128, 1), dtype('int16'), [0.66, 0.66, 5.0])
    """
    frames: list[Frame] = []
    rescaled: dict[bool, Path] = {}
    for path in files:
        header = header_of(path, [*dicom_geometry.TAGS, *_KIND, *_RESCALE])
        with reading(path):
            _require_grey(path, header)
            _refuse_too_large(path, header, tolerance, len(frames))
            frames += frames_of(path, header)
            rescaled.setdefault(_is_rescaled(header), path)
    if len(rescaled) > 1:
        raise bad(rescaled[False], f"it has no rescale, although {rescaled[True].name} of the same series has one")
    lattice = ordered(frames, gaps)
    _refuse_too_many(files[0].parent, lattice, tolerance)
    middle = lattice.frames[len(frames) // 2]
    window = window_of(middle.path, header_of(middle.path, [*dicom_voi.TAGS, *GROUPS]), middle.number, voi)
    volume = _volume(lattice, tolerance)
    return Scan(volume.transpose(2, 1, 0)[None], affine=lattice.affine, window=window and (window.centre, window.width))


def read_picture(path: Path, in_channels: int, voi: str | None = "first", tolerance: Tolerance = STRICT) -> np.ndarray:
    """Read a single-frame file, such as a chest X-ray, as displayed: [C, H, W], from black to white.

    The full range of the output corresponds to the VOI LUT or window if the header has one (values outside it become
    black or white, as in a viewer), otherwise to the stored bits, in which case nothing is clipped. Padding is as dark
    as the darkest pixel.

    Args:
        path: the file.
        in_channels: 1 for grey, 3 for colour or repeated grey.
        voi: which VOI LUT or window to use: "first", or its explanation in the header; None for none.
        tolerance: how many pixels are read.

    Returns:
        uint8 if 8 bits or fewer are stored, otherwise uint16.

    Raises:
        UserError: the file is unreadable, in colour although `in_channels` is 1, has several frames or no pixel data,
            is compressed in a way that needs a package which is not installed, is not finite, is constant or larger
            than allowed; the window is invalid.

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
        _refuse_too_large(path, dataset, tolerance)
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


def _require_grey(path: Path, header: Dataset) -> None:
    photometric = text(header, "PhotometricInterpretation")
    if int(header.get("SamplesPerPixel") or 1) != 1 or photometric not in {*_GREY, ""}:
        raise bad(path, "it is in colour, where grey is expected (set data.in_channels=3 to read pictures in colour)")


def _shown(path: Path, dataset: Dataset, stored: np.ndarray, voi: str | None) -> np.ndarray:
    """Convert stored pixels [rows, columns] to brightness in [0, 1]."""
    values = _in_units(path, dataset, 0, stored)
    table = table_of(path, dataset, voi, _can_be_negative(path, dataset, stored))
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
        return 0.0, _modality_table(dataset, stored).white
    if stored.dtype.kind == "f":
        raise bad(path, "its pixels are floating-point numbers without a window, so black and white are undefined")
    if int(dataset.BitsStored) > 16:
        raise bad(
            path, f"it stores {int(dataset.BitsStored)} bits per pixel without a window, a picture has at most 16"
        )
    return _ends(path, dataset)


def _can_be_negative(path: Path, dataset: Dataset, stored: np.ndarray) -> bool:
    """Return whether a value in modality units can be below 0."""
    if dataset.get("ModalityLUTSequence"):
        return False
    return stored.dtype.kind == "f" or _ends(path, dataset)[0] < 0


def _ends(path: Path, dataset: Dataset) -> tuple[float, float]:
    """Return the lowest and highest value that the stored bits become by the rescale."""
    bits = int(dataset.BitsStored)
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


def _volume(lattice: Lattice, tolerance: Tolerance) -> np.ndarray:
    """Return [places, rows, columns], int16 if every value is an integer in its range, otherwise float32."""
    depth = lattice.places[-1] + 1
    volume = np.empty((depth, *lattice.frames[0].shape), np.int16)
    outside = dict.fromkeys(set(range(depth)) - set(lattice.places), _ALL)
    for place, values, padding in _planes(lattice, tolerance):
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


def _planes(lattice: Lattice, tolerance: Tolerance) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yield the place in the volume, the values in modality units and the padding of each frame, file by file."""
    of_file: dict[Path, dict[int, int]] = defaultdict(dict)
    for place, frame in zip(lattice.places, lattice.frames, strict=True):
        of_file[frame.path][frame.number] = place
    for path, places in of_file.items():
        dataset, wanted = whole(path), sorted(places)
        for number, stored in zip(wanted, _decoded(path, dataset, wanted), strict=True):
            with reading(path, _MISFIT):
                values, padding = _in_units(path, dataset, number, stored, tolerance.nan), _padding(dataset, stored)
            if values.shape != lattice.frames[0].shape:
                raise bad(path, "its number of pixels is not the one in its header")
            yield places[number], values, padding


def _decoded(path: Path, dataset: Dataset, wanted: list[int]) -> Iterator[np.ndarray]:
    """Yield the stored pixels of the wanted frames, [rows, columns] or, in colour, [rows, columns, 3]."""
    from pydicom.pixels.utils import iter_pixels

    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise bad(path, "it has no pixel data")
    compression = _compression(path, dataset)
    isolated = _is_codestream(dataset)
    frames = (decode(path, number) for number in wanted) if isolated else iter_pixels(dataset, indices=wanted)
    for _ in wanted:
        with reading(path, f"its pixels ({compression}) cannot be decoded"):
            unused = _unused_low_bits(dataset)
            if unused:  # pydicom clears the bits above BitsStored, as if that were HighBit + 1
                dataset.BitsStored += unused
            stored = next(frames)
            if unused:
                dataset.BitsStored -= unused
                stored = stored >> unused
        yield stored


def _is_codestream(dataset: Dataset) -> bool:
    """Return whether pixels are compressed as JPEG, JPEG-LS, JPEG 2000 or the like."""
    syntax = dataset.file_meta.TransferSyntaxUID
    return bool(syntax.is_encapsulated) and not syntax.name.startswith("RLE")


def _unused_low_bits(dataset: Dataset) -> int:
    """Return how many bits lie below the pixels where HighBit puts these into the upper bits of their words."""
    if not dataset.get("HighBit") or "PixelData" not in dataset:
        return 0
    if _is_codestream(dataset):
        return 0  # it has its own words
    above = int(dataset.HighBit) < int(dataset.BitsAllocated)
    return max(0, int(dataset.HighBit) + 1 - int(dataset.BitsStored)) if above else 0


def _is_rescaled(header: Dataset) -> bool:
    """Return whether a file says how stored values become modality units."""
    place = of_frame(header, 0, "PixelValueTransformationSequence")
    return bool(header.get("ModalityLUTSequence")) or place.get("RescaleSlope") not in (None, "")


def _refuse_too_large(path: Path, header: Dataset, tolerance: Tolerance, others: int = 0) -> None:
    """Refuse what a header claims before a frame is looked at; `others` frames of the same size are there already."""
    rows, columns, count = int(header.get("Rows") or 0), int(header.get("Columns") or 0), frame_count(header)
    if min(rows, columns) < 1:
        raise bad(path, f"its size is {rows} × {columns} pixels")
    if count > path.stat().st_size:
        raise bad(path, f"it claims {count} frames, more than it has bytes")
    _refuse_above(path, (others + count) * rows * columns, tolerance)


def _refuse_too_many(folder: Path, lattice: Lattice, tolerance: Tolerance) -> None:
    """Refuse a volume that is too large with its gaps."""
    _refuse_above(folder, (lattice.places[-1] + 1) * math.prod(lattice.frames[0].shape), tolerance)


def _refuse_above(path: Path, voxels: int, tolerance: Tolerance) -> None:
    if voxels > tolerance.max_voxels:
        raise UserError(
            f"{path}: it claims {voxels} voxels; raise data.volume.max_voxels={tolerance.max_voxels}, or leave such "
            "files out with data.store.on_bad=skip"
        )


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


def _in_units(
    path: Path, dataset: Dataset, number: int, stored: np.ndarray, nan: Literal["error", "background"] = "error"
) -> np.ndarray:
    """Apply the modality LUT or the rescale of the frame; integers stay integers, everything else is float64."""
    if dataset.get("ModalityLUTSequence"):
        return _modality_table(dataset, stored)(stored)
    slope, intercept = _rescale(path, dataset, number)
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        return stored.astype(np.int64) * int(slope) + int(intercept)
    values: np.ndarray = stored * slope + intercept
    finite = np.isfinite(values)
    if not finite.all() and (nan == "error" or np.isinf(values).any()):
        remedy = "" if np.isinf(values).any() else " (set data.volume.nan=background if NaN stands for it)"
        raise bad(path, f"it holds NaN or infinite pixels{remedy}")
    return values


def _modality_table(dataset: Dataset, stored: np.ndarray) -> LookupTable:
    return lookup_table(dataset.ModalityLUTSequence[0], dataset, stored.dtype.kind == "i")


def _rescale(path: Path, dataset: Dataset, number: int) -> tuple[float, float]:
    place = of_frame(dataset, number, "PixelValueTransformationSequence")
    slope = (numbers(place.get("RescaleSlope")) or (1.0,))[0]
    intercept = (numbers(place.get("RescaleIntercept")) or (0.0,))[0]
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        raise bad(path, f"its rescale is {slope:g} × value + {intercept:g}")
    return slope, intercept


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Return where the stored pixels hold the padding value or lie in the padding range; None without padding."""
    if stored.dtype.kind == "f":
        return np.asarray(np.isnan(stored))
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
