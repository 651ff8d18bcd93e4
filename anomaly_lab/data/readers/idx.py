"""IDX files, the format of MNIST and its relatives: many small images, or their labels, in one file, gzipped or not.

Big-endian header: the magic number 2051 (images) or 2049 (labels), the count, for images rows and columns; then
uint8 (LeCun, Cortes, Burges: "The MNIST database", http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from anomaly_lab.types import UserError

IMAGES, LABELS = 2051, 2049  # magic numbers
_KINDS = {IMAGES: "images", LABELS: "labels"}
_GZIP = b"\x1f\x8b"


def find_idx(root: Path, name: str) -> Path:
    """Path of `name` in `root`, plain or gzipped.

    Raises:
        UserError: there is neither.
    """
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{root}: neither {name} nor {name}.gz is there; add the file")


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read all images, uint8 [N, H, W], or all labels, uint8 [N].

    Args:
        path: the file; gzip is told by its first bytes, whatever the name says.
        magic: IMAGES or LABELS, whichever is expected.

    Raises:
        UserError: unreadable or cut gzip, another magic number, more or fewer bytes than the header announces.
    """
    content = _content(path)
    axes = 3 if magic == IMAGES else 1
    header = 4 * (1 + axes)
    if len(content) < header:
        raise _bad(path, f"{len(content)} bytes are too few for an IDX header")
    found, *shape = struct.unpack(f">{1 + axes}I", content[:header])
    if found != magic:
        what = f"it holds {_KINDS[found]}" if found in _KINDS else "this is no IDX file"
        raise _bad(path, f"its magic number is {found}, not the {magic} of {_KINDS[magic]}: {what}")
    announced, there = math.prod(shape), len(content) - header
    if announced != there:
        size = "×".join(map(str, shape))
        raise _bad(path, f"the header announces {size} = {announced} bytes of {_KINDS[magic]}, {there} follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise _bad(path, f"it cannot be read ({error})") from error


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; get the file again")
