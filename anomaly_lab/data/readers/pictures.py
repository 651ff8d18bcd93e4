"""Reader for picture files: PNG, JPEG, PGM, TIFF, BMP, WebP; 8 bits, 16 bits or float; grey, colour or palette.

A picture is read as it is shown: a TIFF whose white is 0 is inverted, and what Exif says of the orientation is done.
Where a file says something about its values that cannot be obeyed, it is refused. An alpha channel is dropped: the
colours under it are kept, they are not blended with a background. Of a file with a main picture and others (MPO, as
phones write) the main one is read; animations and files of several pages are refused.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from anomaly_lab.data.readers import picture_mask, tiff
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of a broken file names no file

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, what Pillow's convert("L") uses
MAX_PIXELS = 178_956_970  # from here on Pillow takes a picture for an attack
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # none that starts programs
_COLOURS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
_ORIENTATION = 0x0112  # Exif tag
_REMEDY = "replace it, or leave such files out with data.store.on_bad=skip"


@dataclass(frozen=True)
class Rules:
    """What a picture's file does not say about itself.

    Attributes:
        range: the value that is white in files that can hold larger ones, such as 4095 where 12 bits are stored in 16,
            or 255 in floats; None: the largest value of the file's type, 1 for floats.
        mask_values: values of a mask that mean lesion; None: every value but black.
        max_pixels: larger pictures are refused before they are decoded.
    """

    range: float | None = None
    mask_values: tuple[int, ...] | None = None
    max_pixels: int = MAX_PIXELS


def read_image(path: Path, in_channels: int, rules: Rules = Rules()) -> np.ndarray:
    """Read a picture as [C, H, W], uint8, or uint16 if the file stores more than 8 bits per channel.

    Args:
        path: the file.
        in_channels: 1 (colour is converted to luma) or 3 (grey is repeated).
        rules: the range of its values, and how large it may be.

    Raises:
        UserError: the file is unreadable, contains several pictures, is too large, is not finite, is constant or has
            values outside its range.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "grey.png"
        ...     Image.fromarray(np.array([[0, 255]], np.uint8)).save(path)
        ...     read_image(path, in_channels=3).tolist()
        [[[0, 255]], [[0, 255]], [[0, 255]]]
    """
    with _opened(path, rules) as image:
        pixels = _pixels(path, image, in_channels, rules.range)
    if pixels.min() == pixels.max():
        raise _bad(path, f"every pixel is {pixels.flat[0]}, the picture is constant")
    return pixels


def read_mask(path: Path, rules: Rules = Rules()) -> np.ndarray:
    """Read a lesion mask as bool [1, H, W]; `picture_mask.lesion` states what counts as lesion.

    Raises:
        UserError: the file is unreadable, contains several pictures, or its values do not tell what the lesion is.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mask.png"
        ...     Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(path)
        ...     read_mask(path)
        array([[[False,  True,  True]]])
    """
    with _opened(path, rules) as image:
        palette = None
        if image.mode in {"P", "PA"}:
            palette = _upright(image, np.asarray(image).reshape(image.height, image.width, -1)[..., 0])
        white = _stored_white(image)
        values = _deep(path, image)[0] if _is_deep(image) else _with_alpha(image)
        if rules.mask_values is not None and white < 255 and palette is None and values.ndim == 2:
            stored = np.rint(values * (white / 255.0))
            shown = [value for value in rules.mask_values if value > white]  # no number that the file can store
            return (np.isin(stored, rules.mask_values) | np.isin(values, shown))[None]
        try:
            return picture_mask.lesion(values, palette, rules.mask_values, _is_lossy(image))[None]
        except ValueError as error:
            raise _bad(path, str(error)) from error


def picture_size(path: Path, rules: Rules = Rules()) -> tuple[int, int]:
    """Return height and width in pixels, as the picture is shown.

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
    with _opened(path, rules) as image:
        turned = orientation(image) > 4 and not isinstance(image, TiffImageFile)
        return (image.width, image.height) if turned else (image.height, image.width)


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
        with _opened(path, Rules()) as image:
            return _is_deep(image)
    except UserError:
        return False  # the full read, which follows, reports the error


def header_facts(path: Path) -> dict[str, float | str]:
    """Return how a file codes its picture: format, colours, bits a channel, pixels an inch, and tables of JPEG.

    Raises:
        UserError: the file is unreadable.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.png"
        ...     Image.new("RGB", (4, 3)).save(path)
        ...     header_facts(path)
        {'format': 'PNG', 'colours': 'RGB', 'bits': 8}
    """
    with _opened(path, Rules()) as image:
        bits = 32 if image.mode == "F" else 16 if _is_deep(image) else 1 if image.mode == "1" else 8
        facts: dict[str, float | str] = {"format": str(image.format), "colours": image.mode, "bits": bits}
        if dpi := image.info.get("dpi"):
            facts["dpi"] = round(float(dpi[0]), 2)
        if tables := getattr(image, "quantization", None):  # the larger, the stronger the compression
            facts["quantisation"] = sum(tables[min(tables)]) / 64
    return facts


@contextmanager
def _opened(path: Path, rules: Rules) -> Iterator[Image.Image]:
    """Yield a picture whose header is read; whatever breaks on the way becomes a UserError that names the file."""
    if Image.MAX_IMAGE_PIXELS is not None:  # beyond this Pillow warns, beyond twice this it refuses
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, rules.max_pixels // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they name no file
        try:
            # not by its name: Pillow maps such a file into memory and takes rows for columns if it is to be turned
            with regular(path).open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                _check(path, image, rules)
                yield image
        except UserError:
            raise
        except UnidentifiedImageError as error:
            empty = path.stat().st_size == 0
            unknown = tiff.kind(path) or "this is not a picture file"
            raise _bad(path, "the file is empty (0 bytes)" if empty else unknown) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, "more pixels than it may have", rules) from error
        except Exception as error:  # a broken file breaks a decoder in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _bad(path, f"the picture cannot be read ({reason})") from error


def _check(path: Path, image: Image.Image, rules: Rules) -> None:
    """Refuse what would be read wrongly or is too large, by the header."""
    if image.width * image.height > rules.max_pixels:
        raise _too_large(path, f"{image.height}×{image.width} pixels", rules)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _bad(path, "the file contains several pictures, where one is expected")
    if image.mode[0] not in "IF" and image.mode not in _COLOURS:
        raise _bad(path, f"its colours ({image.mode}) are not supported; save it as RGB")
    fault = tiff.fault(image) if isinstance(image, TiffImageFile) else None
    if fault:
        raise _bad(path, f"{fault}, which is not supported; save it as PNG")


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; {_REMEDY}")


def _too_large(path: Path, size: str, rules: Rules) -> UserError:
    return _bad(path, f"it has {size}, the limit is data.picture.max_pixels={rules.max_pixels}")


def as_picture(values: np.ndarray, in_channels: int, rules: Rules = Rules()) -> np.ndarray:
    """Convert an array in memory to what `read_image` returns for a file with the same pixels.

    Args:
        values: [H, W] or [H, W, 3]; uint8, uint16, or floats in [0, 1].
        in_channels: 1 (colour is converted to luma by Rec. 601) or 3 (grey is repeated).
        rules: the range of the values.

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
    if values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16):
        raise UserError(f"pixels of type {values.dtype} are not supported; pass uint8, uint16, or floats in [0, 1]")
    values = _full_range(name, values, rules.range, 1.0 if values.dtype.kind == "f" else np.iinfo(values.dtype).max)
    return _channels(values, in_channels)


def _channels(values: np.ndarray, in_channels: int) -> np.ndarray:
    """Bring [H, W] or [H, W, 3] of an unsigned type to [C, H, W]."""
    if in_channels == 3:
        return np.ascontiguousarray(np.broadcast_to(values.T, (3, *values.T.shape[-2:])).transpose(0, 2, 1))
    if values.ndim == 2:
        return values[None]
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).convert("L"))[None]
    return np.rint(values.astype(np.float64) @ LUMA).astype(np.uint16)[None]


def _pixels(path: Path, image: Image.Image, in_channels: int, top: float | None) -> np.ndarray:
    """Decode a picture to [C, H, W], uint8 or uint16, black 0 and white the largest value of that type."""
    if _declared_white(image):  # of a PGM whose header says it, and Pillow obeys
        top = None
    if _is_deep(image):
        values, white = _deep(path, image)
    else:
        if image.mode in {"P", "PA"}:  # some Pillow versions blend a palette's transparency when converting to grey
            converted = image.convert("RGBA").convert("L" if in_channels == 1 else "RGB")
        else:
            converted = image.convert("L" if in_channels == 1 else "RGB")
        values, white = _upright(image, np.asarray(converted)), 255
    return _channels(_full_range(path, values[..., :3] if values.ndim == 3 else values, top, white), in_channels)


def _is_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF" or _is_deep_colour(image)


def _is_deep_colour(image: Image.Image) -> bool:
    """Return whether Pillow would reduce a colour or alpha picture of 16 bits to 8."""
    deep = ";16" in str(getattr(image, "tile", "")) or _declared_white(image) > 255
    return deep and image.mode in {"RGB", "RGBA", "LA"}


def _declared_white(image: Image.Image) -> int:
    """Return what the header of a PGM or PPM file calls white, if Pillow has to scale to it; otherwise 0."""
    tiles = getattr(image, "tile", ()) if image.format == "PPM" else ()
    return next((int(args[1]) for codec, _, _, args in tiles if codec.startswith("ppm")), 0)


def _stored_white(image: Image.Image) -> int:
    """Return the number that a grey file of less than 8 bits stores for white, which Pillow makes 255."""
    if image.mode == "1":
        return 1
    raw = next((args for _, _, _, args in getattr(image, "tile", ())), "")
    found = re.match(r"L;([24])\b", raw if isinstance(raw, str) else str(raw[0]) if raw else "")
    return 2 ** int(found[1]) - 1 if found else _declared_white(image) or 255


def _is_lossy(image: Image.Image) -> bool:
    """Return whether the format may change values; WebP and JPEG 2000 can do without, which they do not tell."""
    return image.format in {"JPEG", "MPO", "JPEG2000", "WEBP"} or image.info.get("compression") in {
        "jpeg",
        "tiff_jpeg",
        "webp",
    }


def _with_alpha(image: Image.Image) -> np.ndarray:
    """Decode 8 bits, upright, to grey [H, W] or [H, W, 2] with alpha, colour [H, W, 3] or [H, W, 4] with alpha."""
    kept = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "P": "RGBA", "PA": "RGBA"}
    return _upright(image, np.asarray(image.convert(kept.get(image.mode, "RGB"))))


def _deep(path: Path, image: Image.Image) -> tuple[np.ndarray, float]:
    """Decode more than 8 bits, upright, to [H, W] or [H, W, 3 or 4] with alpha; also returns the value of white."""
    if _is_deep_colour(image):
        white = _declared_white(image) or 65535
        return _deep_colour(path, image), white
    if not isinstance(image, TiffImageFile):
        return _upright(image, np.asarray(image)), 1 if image.mode == "F" else 65535
    white, inverted = tiff.white(image), tiff.is_inverted(image)
    values = np.asarray(image)
    if image.mode == "F":
        return values, 1
    return (white - values if inverted else values), white


def _deep_colour(path: Path, image: Image.Image) -> np.ndarray:
    """Decode colours of 16 bits, which Pillow would reduce to 8, to [H, W, 3 or 4]."""
    import cv2  # imported here because few files need it

    image.load()  # OpenCV leaves black what is missing of a damaged file, Pillow refuses it
    spoken = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(spoken)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise _bad(path, "the picture cannot be read")
    order = [2, 1, 0, 3][: pixels.shape[2]]  # OpenCV has BGRA
    return _upright(image, pixels[..., order])


def _upright(image: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Turn decoded pixels [H, W, ...] to how the picture is shown."""
    if isinstance(image, TiffImageFile):  # Pillow and OpenCV turn it themselves
        return pixels
    value = orientation(image)
    if value > 4:
        pixels = pixels.swapaxes(0, 1)
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if value in (2, 3, 6, 7) else pixels


def orientation(image: Image.Image) -> int:
    """Return what Exif says of the orientation, 1 to 8; 1 is upright, and what viewers take a broken tag for.

    Examples:
        >>> orientation(Image.new("L", (4, 3)))
        1
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken tag breaks the parser in any way, and is no reason not to show the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _full_range(path: Path, values: np.ndarray, top: float | None, white: float) -> np.ndarray:
    """Scale values so that white is the largest of uint8, or of uint16 if they are more than 8 bits.

    Args:
        path: the file, for error messages.
        values: whole numbers, or floats, whose white is 1.
        top: the value of white, if the user says it.
        white: the value of white by the file.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise _bad(path, "it holds NaN or infinite pixels")
        white = top or white
        values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)  # float16 ends at 65504
    elif top is not None:
        white = min(top, white)
    if values.dtype == np.uint8 and white == 255:
        return values
    dtype, full = (np.uint8, 255.0) if values.dtype == np.uint8 else (np.uint16, 65535.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > white:
        limits = f"outside the range 0 to {white:g}, which data.picture.range can change"
        raise _bad(path, f"its pixels run from {low:g} to {high:g}, {limits}")
    if white == full:
        return values.astype(dtype, copy=False) if values.dtype.kind != "f" else np.rint(values).astype(dtype)
    return np.rint(values * (full / white)).astype(dtype)
