"""Write a score map as a DICOM Parametric Map that an archive can store next to its series.

Needs the extra `dicom-out` (highdicom). The written file carries the patient's identifying header elements, as its
source files do, because an archive could not assign it otherwise. Do not share it. None of these elements is written
to records, logs or reports.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_lab import __version__
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

EXTRA = "dicom-out"


def write_parametric_map(path: Path, anomaly_map: np.ndarray, source_files: Sequence[Path]) -> None:
    """Write an anomaly map as a new series in the study and frame of reference of its source series.

    Args:
        path: the file to write.
        anomaly_map: float [columns, rows, slices], slices ordered along the slice normal, which is the grid that
            `dicom.read_series` returns.
        source_files: the files of the series, one per slice, in any order.

    Raises:
        UserError: highdicom is not installed; the map is not finite or not of the series' shape; a file is unreadable
            or has several frames; the series lacks header elements that a Parametric Map requires.

    Examples:
        A series on disk is needed, so this block is not executed:

            files = sorted(Path("series").iterdir())
            scan = read_series(files)
            write_parametric_map(Path("map.dcm"), np.zeros(scan.shape, np.float32), files)
    """
    highdicom = _highdicom()
    sources = _sorted_headers(source_files)
    frames = np.ascontiguousarray(anomaly_map.transpose(2, 1, 0), np.float32)
    expected = (len(sources), int(sources[0].Rows), int(sources[0].Columns))
    if frames.shape != expected:
        raise UserError(
            f"{path}: a map of shape {frames.shape} does not fit a series of {expected} (slices, rows, columns); "
            "pass the map of this series"
        )
    if not np.isfinite(frames).all():
        raise UserError(f"{path}: the map contains NaN or infinite values, which a Parametric Map cannot store")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these warnings quote header values
            _parametric_map(highdicom, frames, sources).save_as(path)
    except OSError as error:
        raise UserError(f"{path}: the Parametric Map cannot be written ({error.strerror})") from None
    except Exception:  # depends on the header; the original message may quote its values and is dropped
        folder = source_files[0].parent
        raise UserError(
            f"{folder}: the headers lack elements that a Parametric Map requires; use the NIfTI map instead"
        ) from None


def _highdicom() -> Any:
    try:
        import highdicom  # an optional extra
    except ImportError as error:
        raise UserError(
            f"writing a DICOM Parametric Map needs highdicom: pip install highdicom, or the extra '{EXTRA}'"
        ) from error
    return highdicom


def _sorted_headers(files: Sequence[Path]) -> list[Dataset]:
    """Return the headers of the files, ordered by position along the slice normal."""
    from pydicom import dcmread

    headers, positions = [], []
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = dcmread(regular(path), stop_before_pixels=True, force=True)
                right, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
                positions.append(float(np.array(header.ImagePositionPatient, float) @ np.cross(right, down)))
        except Exception:  # pydicom's message quotes header values
            raise UserError(
                f"{path}: the header has no valid ImagePositionPatient and ImageOrientationPatient; "
                "use the NIfTI map instead"
            ) from None
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError(
                f"{path}: a Parametric Map cannot be written for files with several frames; use the NIfTI map instead"
            )
        headers.append(header)
    return [headers[i] for i in np.argsort(positions, kind="stable")]


def _parametric_map(highdicom: Any, frames: np.ndarray, sources: Sequence[Dataset]) -> Any:
    from pydicom.sr.codedict import codes

    peak = float(frames.max()) or 1.0
    return highdicom.pm.ParametricMap(
        source_images=sources,
        pixel_array=frames,
        series_instance_uid=highdicom.UID(),
        series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="anomaly_lab",
        manufacturer_model_name="anomaly_lab",
        software_versions=__version__,
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_identity(highdicom, codes.UCUM.NoUnits, frames)],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=peak / 2, window_width=peak)],
        content_label="ANOMALY_MAP",
    )


def _identity(highdicom: Any, unit: Any, frames: np.ndarray) -> Any:
    """Return the mapping which declares that stored values are the anomaly scores themselves."""
    return highdicom.pm.RealWorldValueMapping(
        lut_label="ANOMALY_SCORE",
        lut_explanation="unbounded, higher is more anomalous",
        unit=unit,
        value_range=(float(frames.min()), float(frames.max())),
        slope=1.0,
        intercept=0.0,
    )
