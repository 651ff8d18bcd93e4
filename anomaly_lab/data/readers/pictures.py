"""Reader for picture files: PNG, JPEG, PGM, TIFF, BMP; 8 bits, 16 bits or float; grey, colour or palette.

An alpha channel is dropped: the colours under it are kept, they are not blended with a background.
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
    """Read a picture as [C, H, W], uint8, or uint16 if the file stores more than 8 bits per channel.

    Args:
        path: the file.
        in_channels: 1 (colour is converted to luma) or 3 (grey is repeated).

    Raises:
        UserError: the file is unreadable, contains several pictures, is not finite or is constant.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "grey.png"
        ...     Image.fromarray(np.array([[0, 255]], np.uint8)).save(path)
        ...     read_image(path, in_channels=3).tolist()
        [[[0, 255]], [[0, 255]], [[0, 255]]]
    """
    with _reading(path), Image.open(path) as image:
        pixels = _pixels(path, image, in_channels)
    if pixels.min() == pixels.max():
        raise _bad(path, f"every pixel is {pixels.flat[0]}, the picture is constant")
    return pixels


def read_mask(path: Path) -> np.ndarray:
    """Read a lesion mask as bool [1, H, W]; every pixel that is not black belongs to the lesion.

    Raises:
        UserError: the file is unreadable, contains several pictures or is not finite.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mask.png"
        ...     Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(path)
        ...     read_mask(path)
        array([[[False,  True,  True]]])
    """
    with _reading(path), Image.open(path) as image:
        return _pixels(path, image, in_channels=1) > 0


def picture_size(path: Path) -> tuple[int, int]:
    """Return height and width in pixels, from the header alone.

    Raises:
        UserError: the file is unreadable.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "wide.png"
        ...     Image.new("L", (40, 30)).save(path)
        ...     picture_size(path)
        (30, 40)
    """
    with _reading(path), Image.open(path) as image:
        return image.height, image.width


def is_deep(path: Path) -> bool:
    """Return whether the file stores more than 8 bits per channel, from its header; False if it cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "deep.png"
        ...     Image.fromarray(np.array([[0, 65535]], np.uint16)).save(path)
        ...     is_deep(path)
        True
    """
    try:
        with Image.open(path) as image:
            return image.mode[0] in "IF" or _is_deep_colour(image)
    except _FAILURES:
        return False  # the full read, which follows, reports the error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert every exception that a broken file causes in a decoder into a UserError that names the file."""
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
    """Convert an array in memory to what `read_image` returns for a file with the same pixels.

    Args:
        values: [H, W] or [H, W, 3]; uint8, uint16, or floats in [0, 1].
        in_channels: 1 (colour is converted to luma by Rec. 601) or 3 (grey is repeated).

    Returns:
        uint8 or uint16 [C, H, W].

    Raises:
        UserError: the shape or type is not supported, or pixels are out of range or not finite.

    Examples:
        >>> as_picture(np.array([[0, 255]], np.uint8), 3).shape
        (3, 1, 2)
    """
    values, name = np.asarray(values), Path("array")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or not values.size:
        raise UserError(f"an array of shape {values.shape} is not a picture; pass [H, W] or [H, W, 3]")
    if values.dtype.kind == "f":
        values = _sixteen_bits(name, values)
    if values.dtype not in (np.uint8, np.uint16):
        raise UserError(f"pixels of type {values.dtype} are not supported; pass uint8, uint16, or floats in [0, 1]")
    if in_channels == 3:
        return np.ascontiguousarray(np.broadcast_to(values.T, (3, *values.T.shape[-2:])).transpose(0, 2, 1))
    if values.ndim == 2:
        return values[None]
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).convert("L"))[None]
    return np.rint(values.astype(np.float64) @ LUMA).astype(np.uint16)[None]


def _pixels(path: Path, image: Image.Image, in_channels: int) -> np.ndarray:
    """Decode a picture to [C, H, W], uint8 or uint16."""
    if getattr(image, "n_frames", 1) > 1:
        raise _bad(path, "the file contains several pictures, where one is expected")
    if image.mode[0] in "IF":
        return np.repeat(_sixteen_bits(path, np.asarray(image))[None], in_channels, axis=0)
    if _is_deep_colour(image):
        return _deep_colour(path, in_channels)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # some Pillow versions blend a palette's transparency when converting to grey
    pixels = np.asarray(image.convert("L" if in_channels == 1 else "RGB"))
    return pixels[None] if in_channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _sixteen_bits(path: Path, values: np.ndarray) -> np.ndarray:
    """Convert grey of 16 bits, 32 bits or float to uint16; reject values that would have to be clipped."""
    if not np.isfinite(values).all():
        raise _bad(path, "it holds NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    if low < 0 or high > full:
        raise _bad(path, f"its pixels run from {low:g} to {high:g}, outside the supported range 0 to {full:g}")
    return np.rint(values * (65535.0 / full)).astype(np.uint16)


def _is_deep_colour(image: Image.Image) -> bool:
    """Return whether Pillow would reduce a colour or alpha picture of 16 bits to 8."""
    return image.mode in {"RGB", "RGBA", "LA"} and ";16" in str(getattr(image, "tile", ""))


def _deep_colour(path: Path, in_channels: int) -> np.ndarray:
    """Decode a picture with 16 bits per channel, which Pillow would reduce to 8."""
    import cv2  # imported here because few files need it

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _bad(path, "the picture cannot be read")
    colours = np.atleast_3d(pixels)[..., :3][..., ::-1].astype(np.float64)  # OpenCV orders BGRA
    if in_channels == 1:
        colours = (colours @ LUMA if colours.shape[-1] == 3 else colours[..., 0])[..., None]
    elif colours.shape[-1] == 1:
        colours = colours.repeat(3, axis=-1)
    return np.ascontiguousarray(np.rint(colours).astype(np.uint16).transpose(2, 0, 1))
