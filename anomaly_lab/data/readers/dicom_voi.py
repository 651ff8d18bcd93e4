"""Display windows and VOI LUTs of DICOM files (values of interest, PS3.3 C.11.2)."""

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
    """Display window: centre and width in modality units; `function` is LINEAR, LINEAR_EXACT or SIGMOID.

    Examples:
        >>> Window(centre=40, width=80).function
        'LINEAR'
    """

    centre: float
    width: float
    function: str = "LINEAR"


def window_of(path: Path, header: Dataset, number: int, voi: str | None) -> Window | None:
    """Return the display window of a frame; None if the header has none or `voi` is None.

    Args:
        path: the file, for error messages.
        header: its header.
        number: the frame, from 0.
        voi: "first" for the first window, otherwise the WindowCenterWidthExplanation of the wanted one.

    Raises:
        UserError: no window has that explanation, its width is not positive, or its centre or width is not finite.

    Examples:
        >>> from pydicom.dataset import Dataset
        >>> header = Dataset()
        >>> header.WindowCenter, header.WindowWidth = [40, 600], [80, 2800]
        >>> header.WindowCenterWidthExplanation = ["BRAIN", "BONE"]
        >>> window_of(Path("a.dcm"), header, 0, "BONE")
        Window(centre=600.0, width=2800.0, function='LINEAR')
    """
    if voi is None:
        return None
    with reading(path):
        place = of_frame(header, number, "FrameVOILUTSequence")
        centres, widths = numbers(place.get("WindowCenter")), numbers(place.get("WindowWidth"))
        if not centres and not widths:
            return None
        index = _index(path, _as_list(place.get("WindowCenterWidthExplanation")), voi)
        if index >= min(len(centres), len(widths)):
            raise _invalid(path, "a centre without a width or a width without a centre")
        window = Window(centres[index], widths[index], text(place, "VOILUTFunction") or "LINEAR")
    if not math.isfinite(window.centre) or not 0 < window.width < math.inf:
        raise _invalid(path, f"centre {window.centre:g} and width {window.width:g}")
    return window


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Map values in modality units to brightness in [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Values below the window become 0 (black), values above it 1 (white).

    Examples:
        >>> windowed(np.array([-100.0, 0, 40, 80, 100]), Window(40, 80, "LINEAR_EXACT")).tolist()
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    centre, width, function = window
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function != "LINEAR_EXACT":  # LINEAR counts pixel values: width 256 and centre 128 cover 0 to 255
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return np.asarray((values - centre) / width + 0.5).clip(0, 1)


def table_of(
    path: Path, header: Dataset, voi: str | None, signed: bool = False
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the VOI LUT as a function from modality units to brightness in [0, 1]; None if there is none.

    An explanation that no table has also returns None, because it may be that of a window.

    Args:
        path: the file, for error messages.
        header: its header.
        voi: "first" for the first table, otherwise the LUTExplanation of the wanted one; None for no table.
        signed: whether values in modality units can be below 0.

    Raises:
        UserError: the table cannot be used.

    Examples:
        >>> from pydicom.dataset import Dataset
        >>> table = Dataset()
        >>> table.LUTDescriptor, table.LUTData, header = [3, 0, 8], [0, 51, 255], Dataset()
        >>> header.VOILUTSequence = [table]
        >>> table_of(Path("a.dcm"), header, "first")(np.array([0, 1, 2])).tolist()
        [0.0, 0.2, 1.0]
    """
    tables = header.get("VOILUTSequence") or []
    if voi is None or not tables:
        return None
    names = [text(table, "LUTExplanation") for table in tables]
    if voi != "first" and voi not in names:
        return None
    with reading(path, "its VOI LUT cannot be used"):
        table = lookup_table(tables[0 if voi == "first" else names.index(voi)], header, signed)
    return lambda values: table(values) / table.white


class LookupTable(NamedTuple):
    """A modality or VOI LUT: `entries` are the outputs for the inputs from `first` on, and the ends go on for ever.

    Attributes:
        first: the input of the first entry.
        entries: int64 [N].
        white: the highest output that its bits can express.
    """

    first: int
    entries: np.ndarray
    white: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        places = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[places.clip(0, len(self.entries) - 1)])


def lookup_table(item: Dataset, header: Dataset, signed: bool) -> LookupTable:
    """Return the table in an item of a LUT sequence (PS3.3 C.11.1 and C.11.2).

    Entries of 8 bits come in words or in bytes. The first input is a signed number where inputs can be below 0,
    although encodings with implicit types leave that open.

    Args:
        item: of the sequence.
        header: of the file, whose encoding decides on the order of bytes.
        signed: whether inputs can be below 0.

    Raises:
        ValueError: the table is shorter than it says, or its bits are not 1 to 16.

    Examples:
        >>> from pydicom.dataset import Dataset
        >>> item = Dataset()
        >>> item.LUTDescriptor, item.LUTData = [3, 0xFFFF, 8], bytes([0, 51, 255, 0])
        >>> lookup_table(item, Dataset(), signed=True)(np.array([-5, -1, 0, 1])).tolist()
        [0, 0, 51, 255]
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count % (1 << 16) or 1 << 16
    if not 1 <= bits <= 16:
        raise ValueError(f"a LUT of {bits} bits")
    data = item.LUTData
    if isinstance(data, bytes):
        in_bytes = bits <= 8 and len(data) < 2 * count
        words = "<u2" if getattr(header, "original_encoding", (None, True))[1] is not False else ">u2"
        data = np.frombuffer(data, np.uint8 if in_bytes else words)
    entries = np.atleast_1d(np.asarray(data, np.int64))[:count]
    if len(entries) < count:
        raise ValueError(f"a LUT of {len(entries)} entries that promises {count}")
    if signed and first >= 1 << 15:
        first -= 1 << 16
    white = max((1 << bits) - 1, int(entries.max()))
    return LookupTable(first, entries, float(white))


def _index(path: Path, names: list[str], voi: str) -> int:
    if voi == "first":
        return 0
    if voi not in names:  # the explanations in the header are not quoted: they are free text
        raise UserError(f"{path}: no window has the explanation data.voi={voi}; use data.voi=first or data.voi=null")
    return names.index(voi)


def _as_list(value: object) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str) or not hasattr(value, "__iter__") else [str(each) for each in value]


def _invalid(path: Path, fault: str) -> UserError:
    return UserError(
        f"{path}: its window has {fault}; set data.voi=null to ignore windows, "
        "or data.store.on_bad=skip to leave such files out"
    )
