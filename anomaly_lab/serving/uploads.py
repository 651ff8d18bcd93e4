"""Receive the files of a request: streamed to the disk, limited in size, number and time, whatever they are called."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_HEADER = 352  # bytes that tell NIfTI
_LONGEST = 2**12  # bytes of a header of a part


class UploadError(Exception):
    """A request that is refused before it is looked at.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Limits(NamedTuple):
    """What a request may take.

    Attributes:
        size: bytes of its body.
        files: number of its files.
    """

    size: int
    files: int = 5000


async def receive(
    body: AsyncIterator[bytes], content_type: str, declared: str | None, folder: Path, limits: Limits
) -> None:
    """Write the files of a request into a folder, under names of our own.

    Args:
        body: its body.
        content_type: its header; of multipart/form-data every part with a file name is a file, otherwise the body is.
        declared: its header Content-Length.
        folder: an empty folder.
        limits: of size and number.

    Raises:
        UploadError: it is too large, empty or no valid multipart.
    """
    if declared is not None and declared.isdigit() and int(declared) > limits.size:
        raise _too_large(limits)
    kind, options = parse_options_header(content_type)
    sink = _Raw(folder) if kind != b"multipart/form-data" else _Parts(folder, options.get(b"boundary"), limits.files)
    received = 0
    try:
        async for chunk in body:
            received += len(chunk)
            if received > limits.size:
                raise _too_large(limits)
            sink.write(chunk)
        sink.finish()
    except FormParserError as error:
        raise UploadError(400, "the body is no valid multipart/form-data") from error
    finally:
        sink.close()
    files = sorted(folder.iterdir())
    if not files or (len(files) == 1 and not files[0].stat().st_size):
        raise UploadError(
            400, "the upload is empty; send a picture, a NIfTI file, a DICOM file or the files of a series"
        )
    for path in files:
        path.rename(path.with_name(path.name + suffix_of(path)))


def suffix_of(path: Path) -> str:
    """Return the suffix that the readers know a NIfTI file by, from its content; others are told by content.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "upload"
        ...     _ = path.write_bytes(struct.pack("<i", 348) + bytes(340) + b"n+1" + bytes(9))
        ...     suffix_of(path)
        '.nii'
    """
    with path.open("rb") as file:
        start = file.read(_HEADER)
    if start[:2] == b"\x1f\x8b":  # gzip, of which only NIfTI is read
        return ".nii.gz"
    if len(start) < _HEADER:
        return ""
    sizes = {struct.unpack(f"{order}i", start[:4])[0] for order in "<>"}
    magic = start[344:347], start[4:7]
    is_nifti = (348 in sizes and magic[0] in (b"n+1", b"ni1")) or (540 in sizes and magic[1] in (b"n+2", b"ni2"))
    return ".nii" if is_nifti else ""


class _Raw:
    """A body that is one file."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "0000").open("wb")

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        self._file.close()


class _Parts:
    """A body of several parts; those without a file name are passed over."""

    def __init__(self, folder: Path, boundary: bytes | None, most: int) -> None:
        if not boundary:
            raise UploadError(400, "the header Content-Type names no boundary of its parts")
        self._folder, self._most, self._number = folder, most, 0
        self._file: BinaryIO | None = None
        self._name, self._value = b"", b""
        self._is_file = self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self.close,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> None:
        self._parser.finalize()
        if not self._ended:
            raise UploadError(400, "the body ends before its last part does")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _begin(self) -> None:
        self._is_file, self._name, self._value = False, b"", b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name = (self._name + data[start:end])[:_LONGEST]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = (self._value + data[start:end])[:_LONGEST]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._is_file = b"filename" in options
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        """Open a file, which no data may follow: an empty one is not passed over but said to be no scan."""
        if self._is_file:
            if self._number == self._most:
                raise UploadError(413, f"the upload has more than {self._most} files")
            self._file = (self._folder / f"{self._number:04d}").open("wb")
            self._number += 1

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _too_large(limits: Limits) -> UploadError:
    return UploadError(413, f"the upload is larger than the {limits.size / 2**20:g} MB that the server takes (max_mb)")
