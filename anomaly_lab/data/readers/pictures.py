"""Picture files to arrays: PNG, JPEG, PGM, TIFF, BMP; 8 or 16 bits, float; grey, colour, palette; any alpha.

Alpha is dropped as it stands: the colours under it are kept, nothing is blended with a background.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from anomaly_lab.types import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff")
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, what Pillow's convert("L") uses
_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path, in_channels: int) -> np.ndarray:
    """Read a picture as [C, H, W], uint8 or, where the file has more than 8 bits, uint16.

    Args:
        path: the file.
        in_channels: 1 (colour becomes luma) or 3 (grey is repeated).

    Raises:
        UserError: the file is unreadable, several pictures in one, not finite or constant.
    """
    with _reading(path), Image.open(path) as image:
        pixels = _pixels(path, image, in_channels)
    if pixels.min() == pixels.max():
        raise _bad(path, f"every pixel is {pixels.flat[0]}, there is nothing to see in it")
    return pixels


def read_mask(path: Path) -> np.ndarray:
    """Read a lesion mask as bool [1, H, W]; whatever is not black is lesion."""
    with _reading(path), Image.open(path) as image:
        return _pixels(path, image, in_channels=1) > 0


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width by the header, in pixels."""
    with _reading(path), Image.open(path) as image:
        return image.height, image.width


def is_deep(path: Path) -> bool:
    """Whether the file has more than 8 bits a pixel, by its header; False where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode[0] in "IF" or _is_deep_colour(image)
    except _FAILURES:
        return False  # the full read, which follows, says what is wrong with it


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes a decoder raise into one line that names the file."""
    try:
        yield
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise _bad(path, "the file is empty (0 bytes)" if empty else "this is not a picture file") from error
    except _FAILURES as error:
        raise _bad(path, f"the picture cannot be read ({error})") from error


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; replace it, or leave such files out with data.store.on_bad=skip")


def as_picture(values: np.ndarray, in_channels: int) -> np.ndarray:
    """An array in memory as a file of the same pixels would be read.

    Args:
        values: [H, W] or [H, W, 3]; uint8, uint16, or floats in [0, 1].
        in_channels: 1 or 3; colours become grey by Rec. 601, grey is repeated.

    Returns:
        uint8 or uint16 [C, H, W].

    Raises:
        UserError: another shape or type, or pixels out of range or not finite.

    Example:
        >>> as_picture(np.array([[0, 255]], np.uint8), 3).shape
        (3, 1, 2)
    """
    values, name = np.asarray(values), Path("array")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or not values.size:
        raise UserError(f"an array of shape {values.shape} is no picture; give [H, W] or [H, W, 3]")
    if values.dtype.kind == "f":
        values = _sixteen_bits(name, values)
    if values.dtype not in (np.uint8, np.uint16):
        raise UserError(f"pixels of type {values.dtype}; give uint8, uint16, or floats in [0, 1]")
    if in_channels == 3:
        return np.ascontiguousarray(np.broadcast_to(values.T, (3, *values.T.shape[-2:])).transpose(0, 2, 1))
    if values.ndim == 2:
        return values[None]
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).convert("L"))[None]
    return np.rint(values.astype(np.float64) @ LUMA).astype(np.uint16)[None]


def _pixels(path: Path, image: Image.Image, in_channels: int) -> np.ndarray:
    """Decode to [C, H, W], uint8 or uint16."""
    if getattr(image, "n_frames", 1) > 1:
        raise _bad(path, "several pictures in one file, where one is expected")
    if image.mode[0] in "IF":
        return np.repeat(_sixteen_bits(path, np.asarray(image))[None], in_channels, axis=0)
    if _is_deep_colour(image):
        return _deep_colour(path, in_channels)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # straight to grey would blend a palette's transparency in some versions
    pixels = np.asarray(image.convert("L" if in_channels == 1 else "RGB"))
    return pixels[None] if in_channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _sixteen_bits(path: Path, values: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits or float as uint16; refuses what would have to be clipped."""
    if not np.isfinite(values).all():
        raise _bad(path, "it holds NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    if low < 0 or high > full:
        raise _bad(path, f"its pixels run from {low:g} to {high:g}, only 0 to {full:g} can be kept")
    return np.rint(values * (65535.0 / full)).astype(np.uint16)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would cut a colour or alpha picture of 16 bits down to 8."""
    return image.mode in {"RGB", "RGBA", "LA"} and ";16" in str(getattr(image, "tile", ""))


def _deep_colour(path: Path, in_channels: int) -> np.ndarray:
    """Colour of 16 bits, which Pillow cannot keep."""
    import cv2  # a rare road

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _bad(path, "the picture cannot be read")
    colours = np.atleast_3d(pixels)[..., :3][..., ::-1].astype(np.float64)  # OpenCV says blue, green, red, alpha
    if in_channels == 1:
        colours = (colours @ LUMA if colours.shape[-1] == 3 else colours[..., 0])[..., None]
    elif colours.shape[-1] == 1:
        colours = colours.repeat(3, axis=-1)
    return np.ascontiguousarray(np.rint(colours).astype(np.uint16).transpose(2, 0, 1))
