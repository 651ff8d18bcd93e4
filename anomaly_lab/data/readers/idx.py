"""Reader for IDX files, the format of MNIST and related data sets: all images, or all labels, in one file.

The file may be gzipped. Its header is big-endian: the magic number 2051 (images) or 2049 (labels), the count and, for
images, rows and columns. The values follow as uint8 (LeCun, Cortes, Burges: "The MNIST database",
http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

IMAGES, LABELS = 2051, 2049  # magic numbers
_CONTENT_NAMES = {IMAGES: "images", LABELS: "labels"}
MAX_BYTES = 2**32  # of all images or labels, a hundred times as many as MNIST has
_GZIP = b"\x1f\x8b"  # first bytes of a gzip file


def find_idx(root: Path, name: str) -> Path:
    """Return the path of the IDX file `name` in `root`, plain or with the suffix .gz.

    Raises:
        UserError: neither file exists.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "train-labels-idx1-ubyte.gz").touch()
        ...     find_idx(Path(folder), "train-labels-idx1-ubyte").name
        'train-labels-idx1-ubyte.gz'
    """
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{root}: the folder contains neither {name} nor {name}.gz; add one of them")


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read all images, uint8 [N, H, W], or all labels, uint8 [N].

    Args:
        path: the file; gzip is recognized by its first bytes, not by its name.
        magic: the expected content, IMAGES or LABELS.

    Raises:
        UserError: the file is unreadable, its gzip stream is truncated, its magic number is not `magic`, or its size
            is not the one announced by the header.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels"
        ...     _ = path.write_bytes(struct.pack(">2I", LABELS, 3) + bytes([7, 2, 1]))
        ...     read_idx(path, LABELS)
        array([7, 2, 1], dtype=uint8)
    """
    axes = 3 if magic == IMAGES else 1
    header_size = 4 * (1 + axes)
    with _opened(path) as file:
        header = file.read(header_size)
        if len(header) < header_size:
            raise _bad(path, f"{len(header)} bytes are too few for an IDX header")
        actual_magic, *shape = struct.unpack(f">{1 + axes}I", header)
        if actual_magic != magic:
            name = _CONTENT_NAMES.get(actual_magic)
            reason = f"it holds {name}" if name else "this is not an IDX file"
            raise _bad(
                path, f"its magic number is {actual_magic}, not the {magic} of {_CONTENT_NAMES[magic]}: {reason}"
            )
        announced = math.prod(shape)
        content = file.read(min(announced, MAX_BYTES) + 1)  # a small file may unpack to a very large one
    if len(content) != announced:
        size = "×".join(map(str, shape))
        least = " at least" * (len(content) > min(announced, MAX_BYTES))
        raise _bad(
            path,
            f"the header announces {size} = {announced} bytes of {_CONTENT_NAMES[magic]}, {len(content)} follow{least}",
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Yield the file, unpacked if it is gzipped."""
    try:
        with regular(path).open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            if not packed:
                yield file
                return
            with gzip.open(file) as unpacked:
                yield cast("BinaryIO", unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise _bad(path, f"it cannot be read ({error})") from error


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; download the file again")
