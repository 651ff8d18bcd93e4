"""DICOM headers, read such that no personal data leaks: no header value reaches an error, a warning or a log."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

if TYPE_CHECKING:  # pydicom is slow to import and most data sets do not contain DICOM
    from pydicom.dataset import Dataset

_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # little endian, little endian without meta, big endian
_SHORT = 1 << 16  # bytes; the first elements of a data set are shorter than this


def is_dicom(path: Path) -> bool:
    """Return whether the file is DICOM, whatever its suffix.

    The "DICM" prefix decides; a file without the preamble counts as DICOM if it parses.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "IM0001"
        ...     _ = path.write_bytes(bytes(128) + b"DICM")
        ...     is_dicom(path)
        True
    """
    try:
        with regular(path).open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    if start[:2] not in _FIRST_GROUPS or not _looks_like_an_element(start):
        return False
    try:
        return "SOPClassUID" in header_of(path, ["SOPClassUID"])
    except UserError:
        return False


def header_of(path: Path, tags: Sequence[str] | None = None) -> Dataset:
    """Read the elements before the pixel data.

    Args:
        path: the file.
        tags: keywords of the elements to read; None for all.

    Raises:
        UserError: the file cannot be read as DICOM.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> path = Path(get_testdata_file("CT_small.dcm"))  # comes with pydicom
        >>> header_of(path, ["Modality"]).Modality
        'CT'
    """
    from pydicom import dcmread

    with reading(path):
        return dcmread(
            regular(path), stop_before_pixels=True, force=True, specific_tags=None if tags is None else list(tags)
        )


def whole(path: Path) -> Dataset:
    """Read header and pixel data, which stays compressed; a missing transfer syntax is set from the encoding.

    Raises:
        UserError: the file cannot be read as DICOM.

    Examples:
        >>> from pydicom.data import get_testdata_file
        >>> len(whole(Path(get_testdata_file("CT_small.dcm"))).PixelData)  # 128 × 128 pixels of 2 bytes
        32768
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with reading(path):
        dataset = dcmread(regular(path), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return dataset


@contextmanager
def reading(path: Path, fault: str = "this is not a readable DICOM file") -> Iterator[None]:
    """Convert every exception that a broken file causes in pydicom into a UserError.

    The original messages, warnings and log lines are suppressed because they quote header values.

    Args:
        path: the file that is read in the block.
        fault: what the error says about it.

    Raises:
        UserError: with the name of the file, `fault` and the remedy.

    Examples:
        >>> try:
        ...     with reading(Path("a.dcm"), "its rescale is invalid"):
        ...         float("a patient's name")
        ... except UserError as error:
        ...     print(error)
        a.dcm: its rescale is invalid; replace it, or leave such files out with data.store.on_bad=skip
    """
    was = logging.root.manager.disable
    logging.disable()  # pydicom and its decoders log through many loggers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; complete the data set") from None
    except OSError as error:
        raise bad(path, f"the file cannot be read ({error.strerror or 'it ends too early'})") from None
    except Exception:  # a malformed header can raise anything in a lazy parser; the message may quote header values
        raise bad(path, fault) from None
    except BaseException as panic:
        if type(panic).__module__ != "pyo3_runtime":  # decoders in Rust panic; PyO3 makes that no Exception
            raise
        raise bad(path, fault) from None
    finally:
        logging.disable(was)


def bad(path: Path, fault: str) -> UserError:
    """Return the error about one file, with the remedy.

    Examples:
        >>> print(bad(Path("a.dcm"), "it has no pixel data"))
        a.dcm: it has no pixel data; replace it, or leave such files out with data.store.on_bad=skip
    """
    return UserError(f"{path}: {fault}; replace it, or leave such files out with data.store.on_bad=skip")


def hashed(kind: str, value: str) -> str:
    """Return a short name for a value: the first 12 hex digits of the SHA-256 of `kind` and `value`.

    For UIDs, which are too long to be tried out. Never for the number or name of a patient: whoever hashes all numbers
    of eight digits, in two minutes, has it back.

    Examples:
        >>> hashed("series", "1.2.840.1") == hashed("series", " 1.2.840.1 "), len(hashed("series", "1.2.840.1"))
        (True, 12)
    """
    return hashlib.sha256(f"{kind}:{value.strip()}".encode()).hexdigest()[:12]


def text(header: Dataset, keyword: str) -> str:
    """Return an element as stripped text, empty if it is missing. Use it only to compare.

    Examples:
        >>> text({"Modality": "CT "}, "Modality"), text({}, "Modality")
        ('CT', '')
    """
    value = header.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def numbers(value: Any) -> tuple[float, ...]:
    """Return the values of a decimal element with one or many values; an empty tuple if it is missing or empty.

    Examples:
        >>> numbers("0.5"), numbers([40, 600]), numbers(None)
        ((0.5,), (40.0, 600.0), ())
    """
    if value is None or value == "":
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return (float(value),)
    return tuple(float(each) for each in value)


def _looks_like_an_element(start: bytes) -> bool:
    """Return whether bytes 4 to 8 hold a value representation (explicit encodings) or a short length (implicit)."""
    return (start[4:6].isalpha() and start[4:6].isupper()) or 0 < int.from_bytes(start[4:8], "little") < _SHORT
