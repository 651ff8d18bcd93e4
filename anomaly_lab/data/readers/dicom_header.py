"""DICOM headers, opened so that nothing in them about a person can leave: no values in errors, warnings or logs."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_lab.types import UserError

if TYPE_CHECKING:  # pydicom takes a while to import, and most data sets have no DICOM in them
    from pydicom.dataset import Dataset

_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # little endian, little endian without meta, big endian
_SHORT = 1 << 16  # bytes; the first elements of a data set are no longer


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, by its first bytes, without the preamble by whether it parses; never by suffix."""
    try:
        with path.open("rb") as file:
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
    """Everything before the pixels, or of that only the elements named by keyword.

    Raises:
        UserError: the file cannot be read as DICOM.
    """
    from pydicom import dcmread

    with reading(path):
        return dcmread(path, stop_before_pixels=True, force=True, specific_tags=None if tags is None else list(tags))


def whole(path: Path) -> Dataset:
    """Header and (still compressed) pixels, with the transfer syntax filled in where the file keeps it to itself.

    Raises:
        UserError: the file cannot be read as DICOM.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with reading(path):
        dataset = dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return dataset


@contextmanager
def reading(path: Path, fault: str = "this is not a readable DICOM file") -> Iterator[None]:
    """Turn whatever a broken file makes pydicom raise into one line; keep back what pydicom says, it quotes values.

    Raises:
        UserError: as `fault`, with the name of the file and the remedy.
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
    except Exception:  # a hostile header can make a lazy parser raise anything; its words are kept back
        raise bad(path, fault) from None
    finally:
        logging.disable(was)


def bad(path: Path, fault: str) -> UserError:
    """The error of one file."""
    return UserError(f"{path}: {fault}; replace it, or leave such files out with data.store.on_bad=skip")


def hashed(kind: str, value: str) -> str:
    """12 hex digits that stand for a header's value: the same everywhere, so patients stay together across data sets.

    This keeps names out of sight; it does not stop someone who tries every possible number of a hospital.
    """
    return hashlib.sha256(f"{kind}:{value.strip()}".encode()).hexdigest()[:12]


def text(header: Dataset, keyword: str) -> str:
    """An element as text, empty where it is missing. For hashing and comparing only."""
    value = header.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def numbers(value: Any) -> tuple[float, ...]:
    """A decimal element of one or many values; none where it is missing or empty."""
    if value is None or value == "":
        return ()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return (float(value),)
    return tuple(float(each) for each in value)


def _looks_like_an_element(start: bytes) -> bool:
    """Whether bytes 4 to 8 are a value representation, as in explicit encodings, or a short length, as in implicit."""
    return (start[4:6].isalpha() and start[4:6].isupper()) or 0 < int.from_bytes(start[4:8], "little") < _SHORT
