"""Where the frames of a DICOM series lie in the patient: their order along the normal, and the volume's affine.

File names and instance numbers play no part. What cannot be one regular volume is refused, never guessed at.
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
_PARALLEL = 1e-3  # largest difference of two direction cosines that count as equal; headers round to 6 digits or 3
_UNEVEN = 0.1  # largest departure from an even step, as a fraction of the step
_LPS_TO_RAS = np.diag(
    [-1.0, -1.0, 1.0, 1.0]
)  # DICOM counts to the left and the back, NIfTI and we to the right and front


class Frame(NamedTuple):
    """One plane of pixels.

    Attributes:
        path, number: the file, and which of its frames (from 0).
        shape: rows and columns.
        position: centre of the first pixel, in mm, [3], left, posterior, superior.
        right, down: unit vectors along a row and along a column, [3].
        spacing: between rows and between columns, in mm.
        thickness: of the slice, in mm; 1 where the header has none.
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
    """A regular volume.

    Attributes:
        frames: along the normal.
        places: number of each along the third axis; without gaps 0, 1, 2, …
        affine: of the volume [columns, rows, places], voxels to RAS+ mm, float64 [4, 4].
    """

    frames: list[Frame]
    places: list[int]
    affine: np.ndarray


def frame_count(header: Dataset) -> int:
    """How many frames the file holds."""
    return int(header.get("NumberOfFrames") or 1)


def of_frame(header: Dataset, number: int, group: str) -> Dataset:
    """Where an enhanced file keeps `group` for a frame: its own, the shared one, or, in classic files, the header."""
    per_frame, shared = header.get(GROUPS[1]) or [], header.get(GROUPS[0]) or []
    for place in (*per_frame[number : number + 1], *shared[:1]):
        if place.get(group):
            header = place[group].value[0]
            break
    return header


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Every frame of a file with its place.

    Raises:
        UserError: no position, orientation or spacing, or one that makes no sense.
    """
    count = frame_count(header)
    frames = [_frame(path, header, number) for number in range(count)]
    return frames if count == 1 or _is_placed(header) else _stacked(path, header, frames)


def ordered(frames: Sequence[Frame], gaps: Gaps = "refuse") -> Lattice:
    """Put frames in order along their normal.

    Args:
        frames: in any order.
        gaps: "blank" leaves room for missing frames, as long as more are there than missing.

    Raises:
        UserError: sizes, orientations or spacings differ, frames are missing, doubled or out of line.
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
        step = (last.position - first.position) / places[-1]  # with its shear, where the gantry was tilted
        _straight(frames, places, step)
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
        raise bad(path, "it does not say where in the patient it lies (ImagePositionPatient, ImageOrientationPatient)")
    right, down = np.array(cosines[:3]), np.array(cosines[3:])
    if max(abs(right @ right - 1), abs(down @ down - 1), abs(right @ down)) > 10 * _PARALLEL:
        raise bad(path, "its orientation is not two directions at right angles (ImageOrientationPatient)")
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
    """Whether each frame has a position of its own."""
    groups = header.get(GROUPS[1]) or []
    return bool(groups) and all(group.get("PlanePositionSequence") for group in groups)


def _stacked(path: Path, header: Dataset, frames: list[Frame]) -> list[Frame]:
    """The frames of a classic multi-frame file, which gives one position and the offsets of the others."""
    offsets = numbers(header.get("GridFrameOffsetVector"))
    gap = numbers(header.get("SpacingBetweenSlices"))
    if not offsets and gap:
        offsets = tuple(number * gap[0] for number in range(len(frames)))
    if len(offsets) != len(frames) or not np.isfinite(offsets).all():
        raise bad(path, f"it has {len(frames)} frames and does not say how far apart they lie; is it a film?")
    return [
        frame._replace(position=frame.position + (offset - offsets[0]) * frame.normal)
        for frame, offset in zip(frames, offsets, strict=True)
    ]


def _same_grid(first: Frame, other: Frame) -> None:
    def differs(what: str) -> UserError:
        return _refused(other, f"{what} is not that of {first.path.name}; a series of one volume has one")

    if other.shape != first.shape:
        raise differs(f"its size, {other.shape[0]} × {other.shape[1]} pixels,")
    if not np.allclose([*other.right, *other.down], [*first.right, *first.down], rtol=0, atol=_PARALLEL):
        raise differs("its orientation")
    if not np.allclose(other.spacing, first.spacing, rtol=1e-3, atol=0):
        raise differs("its pixel spacing")


def _places(frames: Sequence[Frame], along: np.ndarray, gaps: Gaps) -> list[int]:
    """Number of each frame's place; `along` is where they lie on the normal in mm, rising."""
    if len(frames) < 2:
        return [0]
    steps = np.diff(along)
    usual = float(np.quantile(steps, 0.5, method="lower"))
    doubled = np.flatnonzero(steps < max(1e-4, _UNEVEN * usual))
    if len(doubled):
        before, after = frames[doubled[0]], frames[doubled[0] + 1]
        raise _refused(after, f"it lies where {_name(before, after)} lies (copies, echoes or time points?)")
    counts = np.maximum(1, np.rint(steps / usual)).astype(int)
    off = np.abs(steps - counts * usual) / (counts * usual)
    if off.max() > _UNEVEN:
        fault = "the slices are unevenly spaced"
        raise _apart(frames, int(off.argmax()), steps, usual, fault)
    places = [0, *np.cumsum(counts).tolist()]
    missing = places[-1] + 1 - len(frames)
    if missing and (gaps == "refuse" or missing >= len(frames)):
        fault = f"{missing} of {places[-1] + 1} slices are missing"
        raise _apart(frames, int(counts.argmax()), steps, usual, fault, "set data.gaps=blank, ")
    return places


def _apart(
    frames: Sequence[Frame], before: int, steps: np.ndarray, usual: float, fault: str, remedy: str = ""
) -> UserError:
    """What is wrong with the step from frame `before` to the next."""
    this, other = frames[before + 1], _name(frames[before], frames[before + 1])
    where = f"it lies {steps[before]:.4g} mm from {other}, the usual step is {usual:.4g} mm"
    return _refused(this, f"{fault}: {where}", remedy)


def _straight(frames: Sequence[Frame], places: Sequence[int], step: np.ndarray) -> None:
    """Refuse slices that are shifted against each other within their planes."""
    allowed = max(_UNEVEN * float(np.linalg.norm(step)), 0.5 * min(frames[0].spacing))
    for frame, place in zip(frames, places, strict=True):
        away = float(np.linalg.norm(frame.position - frames[0].position - place * step))
        if away > allowed:
            raise _refused(frame, f"it lies {away:.4g} mm away from the line through the other slices")


def _name(frame: Frame, beside: Frame) -> str:
    return f"frame {frame.number + 1}" if frame.path == beside.path else frame.path.name


def _refused(frame: Frame, fault: str, remedy: str = "") -> UserError:
    return UserError(
        f"{frame.path}: {fault}; complete or part the series, {remedy}or leave such out with data.store.on_bad=skip"
    )
