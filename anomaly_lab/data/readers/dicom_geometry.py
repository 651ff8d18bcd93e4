"""Geometry of DICOM series: the order of the frames along their normal and the affine of the volume.

Only positions count, not file names or instance numbers. A series that is not one regular volume is rejected; nothing
is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.readers.dicom_header import bad, numbers
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Gaps = Literal["refuse", "blank"]
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "GridFrameOffsetVector", "DetectorInformationSequence", *GROUPS),
)
_PARALLEL = 1e-3  # largest difference of direction cosines that count as equal; headers round to 6 or 3 digits
_UNEVEN = 0.1  # largest deviation of a step from the usual one, as a fraction of it
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM axes point to the left and back, ours to the right and front


class Frame(NamedTuple):
    """Position of one plane of pixels in space.

    Attributes:
        path, number: the file and the frame in it, from 0.
        shape: rows and columns.
        position: centre of the first pixel in mm, [3], axes left, posterior, superior (LPS+).
        right, down: unit vectors along a row and along a column, [3].
        spacing: distance between rows and between columns in mm.
        thickness: slice thickness in mm; 1 if the header has none.
    """

    path: Path
    number: int
    shape: tuple[int, int]
    position: np.ndarray
    right: np.ndarray
    down: np.ndarray
    spacing: tuple[float, float]
    thickness: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.right, self.down)


class Lattice(NamedTuple):
    """Frames that form a regular volume.

    Attributes:
        frames: ordered along the normal.
        places: index of each frame along the third axis; 0, 1, 2, … without gaps.
        affine: float64 [4, 4], maps voxels of the volume [columns, rows, places] to mm (RAS+).
    """

    frames: list[Frame]
    places: list[int]
    affine: np.ndarray


def frame_count(header: Dataset) -> int:
    """Return the number of frames in the file; it is at least 1.

    Raises:
        ValueError: the header says otherwise.

    Examples:
        >>> frame_count({"NumberOfFrames": "3"}), frame_count({})
        (3, 1)
    """
    count = int(header.get("NumberOfFrames") or 1)
    if count < 1:
        raise ValueError(f"NumberOfFrames={count}")
    return count


def of_frame(header: Dataset, number: int, group: str) -> Dataset:
    """Return the data set that holds a functional group of a frame.

    Args:
        header: of the file.
        number: the frame, from 0.
        group: keyword of the functional group.

    Returns:
        The frame's own group, else the shared one, else, as in classic files, the header itself.

    Examples:
        >>> from pydicom.dataset import Dataset
        >>> header, shared, measures = Dataset(), Dataset(), Dataset()
        >>> measures.PixelSpacing = [0.5, 0.5]
        >>> shared.PixelMeasuresSequence = [measures]
        >>> header.SharedFunctionalGroupsSequence = [shared]
        >>> of_frame(header, 0, "PixelMeasuresSequence") == measures
        True
    """
    per_frame, shared = header.get(GROUPS[1]) or [], header.get(GROUPS[0]) or []
    for place in (*per_frame[number : number + 1], *shared[:1]):
        if place.get(group):
            header = place[group].value[0]
            break
    return header


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Return every frame of a file with its position in space.

    Raises:
        UserError: position, orientation or spacing is missing or invalid.

    Examples:
        >>> from pydicom.dataset import Dataset
        >>> header = Dataset()
        >>> header.Rows, header.Columns, header.PixelSpacing, header.SliceThickness = 512, 512, [0.5, 0.5], 5
        >>> header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 15], [1, 0, 0, 0, 1, 0]
        >>> [(frame.shape, frame.position.tolist()) for frame in frames_of(Path("a.dcm"), header)]
        [((512, 512), [0.0, 0.0, 15.0])]
    """
    count = frame_count(header)
    frames = [_frame(path, header, number) for number in range(count)]
    return frames if count == 1 or _is_placed(header) else _stacked(path, header, frames)


def ordered(frames: Sequence[Frame], gaps: Gaps = "refuse") -> Lattice:
    """Order frames along their normal and compute the affine of the volume.

    Args:
        frames: in any order.
        gaps: "refuse" rejects a series with missing frames; "blank" leaves their places empty, provided that fewer
            frames are missing than present.

    Raises:
        UserError: sizes, orientations or spacings differ, or frames are missing, duplicated or out of line.

    Examples:
        >>> right, down = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
        >>> heights = {"a": 10.0, "b": 0.0, "c": 5.0}  # mm
        >>> frames = [
        ...     Frame(Path(name), 0, (8, 8), np.array([0, 0, z]), right, down, (1.0, 1.0), 5.0)
        ...     for name, z in heights.items()
        ... ]
        >>> lattice = ordered(frames)
        >>> [frame.path.name for frame in lattice.frames], np.diag(lattice.affine).tolist()
        (['b', 'c', 'a'], [-1.0, -1.0, 5.0, 1.0])
    """
    for frame in frames:
        _same_grid(frames[0], frame)
    along = np.array([frame.position @ frames[0].normal for frame in frames])
    order = np.argsort(along, kind="stable")
    frames = [frames[i] for i in order]
    places = _places(frames, along[order], gaps)
    first, last = frames[0], frames[-1]
    step = first.normal * first.thickness
    if len(frames) > 1:
        step = (last.position - first.position) / places[-1]  # includes the shear of a tilted gantry
        _validate_alignment(frames, places, step)
    lps = np.eye(4)
    lps[:3] = np.stack([first.right * first.spacing[1], first.down * first.spacing[0], step, first.position], axis=1)
    return Lattice(frames, places, _LPS_TO_RAS @ lps)


def _frame(path: Path, header: Dataset, number: int) -> Frame:
    position = numbers(of_frame(header, number, "PlanePositionSequence").get("ImagePositionPatient"))
    plane = of_frame(header, number, "PlaneOrientationSequence")
    measures = of_frame(header, number, "PixelMeasuresSequence")
    cosines = numbers(plane.get("ImageOrientationPatient"))
    if not (position and cosines) and header.get("DetectorInformationSequence"):  # nuclear medicine
        detector = header["DetectorInformationSequence"].value[0]
        position = position or numbers(detector.get("ImagePositionPatient"))
        cosines = cosines or numbers(detector.get("ImageOrientationPatient"))
    if len(position) != 3 or len(cosines) != 6 or not np.isfinite([*position, *cosines]).all():
        raise bad(path, "its position in space is missing (ImagePositionPatient, ImageOrientationPatient)")
    right, down = np.array(cosines[:3]), np.array(cosines[3:])
    if max(abs(right @ right - 1), abs(down @ down - 1), abs(right @ down)) > 10 * _PARALLEL:
        raise bad(path, "its orientation is not two orthogonal unit vectors (ImageOrientationPatient)")
    spacing = numbers(measures.get("PixelSpacing"))
    if len(spacing) != 2 or not np.isfinite(spacing).all() or min(spacing) <= 0:
        shown = "missing" if not spacing else " × ".join(f"{edge:g}" for edge in spacing) + " mm"
        raise bad(path, f"its pixel spacing is {shown}")
    thickness = numbers(measures.get("SliceThickness"))
    usable = bool(thickness) and np.isfinite(thickness[0]) and thickness[0] > 0
    shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
    return Frame(
        path, number, shape, np.array(position), right, down, (spacing[0], spacing[1]), thickness[0] if usable else 1.0
    )


def _is_placed(header: Dataset) -> bool:
    """Return whether each frame has a position of its own."""
    groups = header.get(GROUPS[1]) or []
    return bool(groups) and all(group.get("PlanePositionSequence") for group in groups)


def _stacked(path: Path, header: Dataset, frames: list[Frame]) -> list[Frame]:
    """Position the frames of a classic multi-frame file, which has one position and the offsets of the frames."""
    offsets = numbers(header.get("GridFrameOffsetVector"))
    gap = numbers(header.get("SpacingBetweenSlices"))
    if not offsets and gap:
        offsets = tuple(number * gap[0] for number in range(len(frames)))
    if len(offsets) != len(frames) or not np.isfinite(offsets).all():
        raise bad(path, f"it has {len(frames)} frames without the distance between them (it may be a cine loop)")
    return [
        frame._replace(position=frame.position + (offset - offsets[0]) * frame.normal)
        for frame, offset in zip(frames, offsets, strict=True)
    ]


def _same_grid(first: Frame, other: Frame) -> None:
    def differs(property_name: str) -> UserError:
        return _refused(other, f"{property_name} is not that of {first.path.name}, as it must be within a volume")

    if other.shape != first.shape:
        raise differs(f"its size, {other.shape[0]} × {other.shape[1]} pixels,")
    if not np.allclose([*other.right, *other.down], [*first.right, *first.down], rtol=0, atol=_PARALLEL):
        raise differs("its orientation")
    if not np.allclose(other.spacing, first.spacing, rtol=1e-3, atol=0):
        raise differs("its pixel spacing")


def _places(frames: Sequence[Frame], along: np.ndarray, gaps: Gaps) -> list[int]:
    """Return the index of each frame along the normal; `along` holds their ascending positions in mm."""
    if len(frames) < 2:
        return [0]
    steps = np.diff(along)
    usual = float(np.quantile(steps, 0.5, method="lower"))
    doubled = np.flatnonzero(steps < max(1e-4, _UNEVEN * usual))
    if len(doubled):
        before, after = frames[doubled[0]], frames[doubled[0] + 1]
        raise _refused(
            after, f"it has the same position as {_name(before, after)} (a copy, echo, time point or other patient?)"
        )
    counts = np.maximum(1, np.rint(steps / usual)).astype(int)
    off = np.abs(steps - counts * usual) / (counts * usual)
    if off.max() > _UNEVEN:
        fault = "the slices are unevenly spaced"
        raise _step_error(frames, int(off.argmax()), steps, usual, fault)
    places = [0, *np.cumsum(counts).tolist()]
    missing = places[-1] + 1 - len(frames)
    if missing and (gaps == "refuse" or missing >= len(frames)):
        fault = f"{missing} of {places[-1] + 1} slices are missing"
        raise _step_error(frames, int(counts.argmax()), steps, usual, fault, "set data.gaps=blank, ")
    return places


def _step_error(
    frames: Sequence[Frame], before: int, steps: np.ndarray, usual: float, fault: str, remedy: str = ""
) -> UserError:
    """Return the error about the step from frame `before` to the next."""
    current, previous = frames[before + 1], _name(frames[before], frames[before + 1])
    where = f"it lies {steps[before]:.4g} mm from {previous}, the usual step is {usual:.4g} mm"
    return _refused(current, f"{fault}: {where}", remedy)


def _validate_alignment(frames: Sequence[Frame], places: Sequence[int], step: np.ndarray) -> None:
    """Reject slices that are shifted against each other within their planes."""
    allowed = max(_UNEVEN * float(np.linalg.norm(step)), 0.5 * min(frames[0].spacing))
    for frame, place in zip(frames, places, strict=True):
        away = float(np.linalg.norm(frame.position - frames[0].position - place * step))
        if away > allowed:
            raise _refused(frame, f"it lies {away:.4g} mm away from the line through the other slices")


def _name(frame: Frame, beside: Frame) -> str:
    return f"frame {frame.number + 1}" if frame.path == beside.path else frame.path.name


def _refused(frame: Frame, fault: str, remedy: str = "") -> UserError:
    return UserError(
        f"{frame.path}: {fault}; complete or split the series, {remedy}or leave such files out with "
        "data.store.on_bad=skip"
    )
