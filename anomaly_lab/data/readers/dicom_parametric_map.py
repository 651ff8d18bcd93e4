"""A score map as DICOM Parametric Map, for the archive the series came from; needs the extra `dicom-out` (highdicom).

The file carries the patient's header as its source does, or no archive could file it: it is never shared, and nothing
of it goes into records, logs or reports.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_lab import __version__
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

EXTRA = "dicom-out"


def write_parametric_map(path: Path, anomaly_map: np.ndarray, source_files: Sequence[Path]) -> None:
    """Write a map beside its series, in the same study and the same frame of reference.

    Args:
        path: of the new file.
        anomaly_map: float [columns, rows, slices], slices along the normal: the grid the series was read to.
        source_files: the series, one file a slice, in any order.

    Raises:
        UserError: highdicom is not installed; the map is not finite or not of the series' shape; a file is unreadable
            or has several frames; the series lacks what a Parametric Map must say.
    """
    highdicom = _highdicom()
    sources = _in_order(source_files)
    frames = np.ascontiguousarray(anomaly_map.transpose(2, 1, 0), np.float32)
    expected = (len(sources), int(sources[0].Rows), int(sources[0].Columns))
    if frames.shape != expected:
        raise UserError(f"{path}: a map of {frames.shape} does not fit a series of {expected} (slices, rows, columns)")
    if not np.isfinite(frames).all():
        raise UserError(f"{path}: the map holds NaN or infinite values")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the header
            _parametric_map(highdicom, frames, sources).save_as(path)
    except OSError as error:
        raise UserError(f"{path}: the Parametric Map cannot be written ({error.strerror})") from None
    except Exception:  # whatever a header lacks or holds; its values are kept back
        folder = source_files[0].parent
        raise UserError(f"{folder}: its headers lack what a Parametric Map must say; take the NIfTI map") from None


def _highdicom() -> Any:
    try:
        import highdicom  # an optional extra
    except ImportError as error:
        raise UserError(
            f"a DICOM Parametric Map needs highdicom: pip install highdicom, or the extra '{EXTRA}'"
        ) from error
    return highdicom


def _in_order(files: Sequence[Path]) -> list[Dataset]:
    """Headers along the normal of their planes."""
    from pydicom import dcmread

    sources, along = [], []
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = dcmread(path, stop_before_pixels=True, force=True)
                right, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
                along.append(float(np.array(header.ImagePositionPatient, float) @ np.cross(right, down)))
        except Exception:  # pydicom's words quote the header
            raise UserError(f"{path}: it says nothing of its place in space; take the NIfTI map") from None
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{path}: a series of several frames a file has no Parametric Map; take the NIfTI map")
        sources.append(header)
    return [sources[i] for i in np.argsort(along, kind="stable")]


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
    """Says that stored values are the scores themselves."""
    return highdicom.pm.RealWorldValueMapping(
        lut_label="ANOMALY_SCORE",
        lut_explanation="unbounded, higher is more anomalous",
        unit=unit,
        value_range=(float(frames.min()), float(frames.max())),
        slope=1.0,
        intercept=0.0,
    )
