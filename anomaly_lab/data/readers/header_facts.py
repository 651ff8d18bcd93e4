"""What a file says of itself and of how it was made, and of nobody: bytes, format, colours, scanner settings.

A listed field is read, and no other: no name, number, date, age, place, UID or comment. Of a text, such as a
manufacturer, only eight digits of a checksum are kept, by which equal ones are equal: whatever somebody may have typed
into such a field is not in a store.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomaly_lab.data.readers import dicom, nifti, pictures
from anomaly_lab.data.readers.dicom_header import header_of, numbers, reading, text
from anomaly_lab.types import UserError

_NUMBERS = (
    *("KVP", "XRayTubeCurrent", "Exposure", "ExposureTime", "SliceThickness", "SpacingBetweenSlices", "BitsStored"),
    *("PixelSpacing", "ImagerPixelSpacing", "ReconstructionDiameter", "GantryDetectorTilt", "WindowCenter"),
    *("WindowWidth", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "MagneticFieldStrength"),
)
_TEXTS = (
    *("Modality", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "BodyPartExamined", "ViewPosition"),
    *("PatientPosition", "PhotometricInterpretation", "ScanningSequence", "FilterType"),
)

Fact = float | str


def file_facts(files: Sequence[Path]) -> dict[str, Fact]:
    """Return what the files of one scan say of themselves; whatever cannot be read is left out.

    Args:
        files: of a scan; of several, a DICOM series, the header of the first is read.

    Returns:
        `bytes` of all files together, and fields of the header by name: numbers, and checksums of texts.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.png"
        ...     Image.new("L", (40, 30)).save(path)
        ...     facts = file_facts([path])
        >>> facts["bytes"] > 0, facts["bits"], facts["format"] == "PNG"
        (True, 8, True)
    """
    facts: dict[str, Fact] = {}
    try:
        facts["bytes"] = sum(path.stat().st_size for path in files)
        if nifti.is_nifti(files[0]):
            facts |= nifti.header_facts(files[0])
        elif dicom.is_dicom(files[0]):
            facts |= _of_dicom(files[0])
        elif files[0].suffix.lower() in pictures.SUFFIXES:
            facts |= pictures.header_facts(files[0])
    except (OSError, UserError):
        pass  # whoever reads the pixels says so
    return facts


def _of_dicom(path: Path) -> dict[str, Fact]:
    header = header_of(path, [*_NUMBERS, *_TEXTS])
    facts: dict[str, Fact] = {}
    for keyword in _NUMBERS:
        try:
            with reading(path):
                values = numbers(header.get(keyword))
        except UserError:  # a field that is no number is none
            continue
        if values:
            facts[keyword] = values[0]
    for keyword in _TEXTS:
        if said := text(header, keyword):
            facts[keyword] = checksum(said)
    syntax: Any = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    return facts | ({"compression": checksum(str(syntax))} if syntax else {})


def checksum(said: str) -> str:
    """Return eight digits that are equal for equal texts.

    Examples:
        >>> checksum("ACME") == checksum("ACME"), checksum("ACME") == checksum("Umbrella"), len(checksum("ACME"))
        (True, False, 8)
    """
    return f"{zlib.crc32(said.encode()):08x}"
