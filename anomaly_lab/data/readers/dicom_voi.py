"""How a DICOM file asks to be shown: its windows and tables of values of interest (PS3.3 C.11.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from anomaly_lab.data.readers.dicom_geometry import of_frame
from anomaly_lab.data.readers.dicom_header import numbers, reading, text
from anomaly_lab.types import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TAGS = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")


class Window(NamedTuple):
    """Centre and width in modality units; `function` is LINEAR, LINEAR_EXACT or SIGMOID."""

    centre: float
    width: float
    function: str = "LINEAR"


def window_of(path: Path, header: Dataset, number: int, voi: str | None) -> Window | None:
    """The window of frame `number`, the first or the one explained as `voi`; None where none is there or wanted.

    Raises:
        UserError: no window has that name; its width is not positive, or centre or width is no finite number.
    """
    if voi is None:
        return None
    with reading(path):
        place = of_frame(header, number, "FrameVOILUTSequence")
        centres, widths = numbers(place.get("WindowCenter")), numbers(place.get("WindowWidth"))
        if not centres and not widths:
            return None
        chosen = _chosen(path, _many(place.get("WindowCenterWidthExplanation")), voi)
        if chosen >= min(len(centres), len(widths)):
            raise _absurd(path, "a centre and a width that are not both there")
        window = Window(centres[chosen], widths[chosen], text(place, "VOILUTFunction") or "LINEAR")
    if not math.isfinite(window.centre) or not 0 < window.width < math.inf:
        raise _absurd(path, f"centre {window.centre:g} and width {window.width:g}")
    return window


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Brightness in [0, 1] of values in modality units; black below the window, white above."""
    centre, width, function = window
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function != "LINEAR_EXACT":  # the default counts pixel values: a window of 256 around 128 holds 0 to 255
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return np.asarray((values - centre) / width + 0.5).clip(0, 1)


def table_of(path: Path, header: Dataset, voi: str | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """The VOI LUT, first or explained as `voi`, from modality units to brightness in [0, 1]; None where there is none.

    A name that no table has may still be that of a window.
    """
    tables = header.get("VOILUTSequence") or []
    if voi is None or not tables:
        return None
    names = [text(table, "LUTExplanation") for table in tables]
    if voi != "first" and voi not in names:
        return None
    index = 0 if voi == "first" else names.index(voi)
    white = 2.0 ** int(tables[index].LUTDescriptor[2]) - 1

    def apply(values: np.ndarray) -> np.ndarray:
        from pydicom.pixels.processing import apply_voi

        with reading(path, "its VOI LUT cannot be used"):
            return np.asarray(apply_voi(np.rint(values).astype(np.int64), header, index)) / white

    return apply


def _chosen(path: Path, names: list[str], voi: str) -> int:
    if voi == "first":
        return 0
    if voi not in names:  # which names there are stays in the header: it is free text
        raise UserError(f"{path}: it has no window explained as data.voi={voi}; take data.voi=first or null")
    return names.index(voi)


def _many(value: object) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str) or not hasattr(value, "__iter__") else [str(each) for each in value]


def _absurd(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: its window has {what}; say data.voi=null to leave windows unread, "
        "or data.store.on_bad=skip to leave it out"
    )
